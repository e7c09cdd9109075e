"""The numbers of runs side by side, what differs in their recipes, and where they ran."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dlp_plugins.report.from_run import RunReading
from dlp_plugins.report.page import Block, Listing, Sheet
from dlp_plugins.report.points import printable
from dlp_plugins.training.card import ERRORS
from dlp_plugins.training.folder import flatten
from dlp_plugins.training.summary import with_propagation
from dlp_plugins.units import format_seconds

LONGEST_VALUE = 400
OTHERS = {"pseudo_label_accuracy": "pseudo-label accuracy, %", "num_labeled": "labelled images"}


def summary_sheet(runs: Sequence[RunReading]) -> Sheet:
    """A column for each run."""
    titles = {k: f"test error, {title}, %" for k, title in ERRORS.items()} | OTHERS
    summaries = [with_propagation(run.summary) for run in runs]
    rows = [
        [title, *(_number(summary.get(key)) for summary in summaries)]
        for key, title in titles.items()
        if any(key in summary for summary in summaries)
    ]
    rows.append(["epochs", *(_epochs(run.summary["epochs"]) for run in runs)])
    rows.append(["seed", *(str(run.summary["seed"]) for run in runs)])
    rows.append(["time", *(format_seconds(run.summary["seconds"]) for run in runs)])
    return Sheet("", ["", *(printable(run.name) for run in runs)], rows)


def recipe_blocks(runs: Sequence[RunReading]) -> list[Block]:
    blocks: list[Block] = []
    if len(runs) > 1:
        blocks.append(_differences(runs))
    return blocks + [Listing(f"Recipe of {printable(run.name)}", run.recipe) for run in runs]


def environment_sheet(names: Sequence[str], environments: Sequence[Mapping[str, Any]]) -> Sheet:
    """A column for each run."""
    flat = [flatten(dict(e)) for e in environments]
    keys = list(dict.fromkeys(key for found in flat for key in found if key != "format"))
    rows = [
        [printable(key.removeprefix("packages.")), *(_plain(found.get(key)) for found in flat)]
        for key in keys
        if key != "plugins" or any(found.get(key) for found in flat)
    ]
    return Sheet("", ["", *map(printable, names)], rows, numbers=False)


def _differences(runs: Sequence[RunReading]) -> Sheet:
    flat = [flatten(run.settings) for run in runs]
    keys = sorted({key for found in flat for key in found} - {"description"})
    rows = [
        [key, *(_plain(found.get(key)) for found in flat)]
        for key in keys
        if any(found.get(key) != flat[0].get(key) for found in flat)
    ]
    caption = "" if rows else "Nothing: the recipes are the same."
    header = ["", *(printable(run.name) for run in runs)]
    return Sheet("What differs in the recipes", header, rows, caption, numbers=False)


def _epochs(epochs: Mapping[str, Any]) -> str:
    return " + ".join(str(count) for count in epochs.values())


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else f"{value:,}"


def _plain(value: Any) -> str:
    return "-" if value is None else printable(value, LONGEST_VALUE)
