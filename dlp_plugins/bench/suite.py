"""A suite: rows of a table, each a recipe with settings, and the seeds to run it with.

recipe = "digits"                      # of every row that names none
seeds = 3                              # 0, 1, 2
set = ["training.stage_two_epochs=10"]

[vary]                                 # every combination is a row
solver = ["cg", "power"]
"solver.alpha" = [0.9, 0.99]

[[rows]]                               # or rows one by one
name = "lp, 500 labels"
recipe = "lp_cifar10"
published = [32.40, 1.80]

Settings of the command line win over `set` and those of a row. What would change a key that is
varied, or make two rows the same, is refused.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from dlp_plugins.errors import UsageError
from dlp_plugins.recipe.check import check_table, load_recipe
from dlp_plugins.recipe.files import (
    RecipeError,
    named,
    override_layer,
    read_toml,
    recipe_folders,
)
from dlp_plugins.recipe.model import Recipe, Table

TABLES = ("results.md", "results.csv", "results.json")
"""What a suite's folder holds besides the folders of its rows."""
LONGEST_NAME = 200
MOST_SEEDS, MOST_TRIALS = 1000, 10_000
Figure = tuple[float, float | None]  # mean and, where known, standard deviation


class Row(Table):
    name: str
    recipe: str | None = None
    set: list[str] = Field(default_factory=list)
    published: list[float] | None = Field(
        None, min_length=1, max_length=2, description="mean and standard deviation, percent"
    )


class SuiteTable(Table):
    """What a suite's file may hold."""

    description: str = ""
    recipe: str | None = None
    seeds: int = Field(1, ge=1, le=MOST_SEEDS)
    set: list[str] = Field(default_factory=list)
    vary: dict[str, list[Any]] = Field(default_factory=dict)
    rows: list[Row] = Field(default_factory=list)


@dataclass(frozen=True)
class Trial:
    """One run of a suite.

    row: the row's name. factors: what varies, for the table's columns. published: mean and standard
    deviation in percent, or None.
    """

    row: str
    factors: dict[str, str]
    seed: int
    recipe: Recipe
    published: Figure | None

    @property
    def folder(self) -> Path:
        """Where the run goes, below the suite's folder."""
        return Path(re.sub(r"[^\w.=-]+", "_", self.row).strip("_")) / f"seed{self.seed}"


@dataclass(frozen=True)
class Suite:
    name: str
    description: str
    trials: list[Trial]


def find_suite(name: str) -> Path | None:
    """The file of a suite given by path or by name; None where that is no suite.

    What has a folder before it is a path alone, and a file that is there is what it is.
    """
    for path in [Path(name), *named(name, (f / "suites" for f in recipe_folders()))]:
        with contextlib.suppress(OSError, RecipeError):  # a name too long for a file; no TOML
            if path.is_file():
                return path if read_toml(path).keys() & {"recipe", "rows", "vary"} else None
    return None


def suite_names() -> list[str]:
    """Names of the suites that come with the project."""
    return sorted(f.stem for folder in recipe_folders() for f in (folder / "suites").glob("*.toml"))


def load_suite(path: Path, overrides: Sequence[str] = (), seeds: int | None = None) -> Suite:
    """Read a suite and check every recipe in it before anything runs.

    Args:
        overrides: settings of all rows, over those that a row has itself.

    Raises:
        RecipeError: what is wrong in the suite or in a recipe it names; an override that changes
            what is varied, or makes rows the same.
    """
    table: SuiteTable = check_table(SuiteTable, read_toml(path), str(path))
    alone = "" if table.vary else Path(table.recipe or "").stem
    rows = table.rows or [Row(name=alone)]
    trials: list[Trial] = []
    replaced: set[str] = set()  # rows, by name
    for row in rows:
        recipe = row.recipe or table.recipe
        if recipe is None:
            raise RecipeError(f"{path}: rows: row '{row.name}' names no recipe, nor does the suite")
        figure = (row.published[0], (*row.published, None)[1]) if row.published else None
        more = _trials(
            row.name, recipe, [*table.set, *row.set], overrides, table.vary, seeds or table.seeds,
            figure, f"{path}{' or --set' if overrides else ''}",
        )  # fmt: skip
        if any(_changes(text, row.set) for text in overrides):
            replaced |= {trial.row for trial in more}
        trials += more
        _check_number(len(trials))
    _check_names(trials, str(path))
    if replaced:
        _check_distinct(trials, replaced, path)
    return Suite(path.stem, table.description, trials)


def suite_of_recipe(
    recipe: str, vary: Iterable[str], overrides: Sequence[str] = (), seeds: int = 1
) -> Suite:
    """`dlp bench RECIPE --vary solver=cg,power`: every combination of the values given.

    Raises:
        UsageError: a --vary that is not key=value,value; RecipeError: as for any recipe.
    """
    factors: dict[str, list[Any]] = {}
    for text in vary:
        key, equals, values = text.partition("=")
        if not equals or not key or not all(values.split(",")):
            raise UsageError(f"--vary {text}: write key=value,value, e.g. --vary solver=cg,power")
        if key in factors:
            raise UsageError(f"--vary {key}: is given twice; name all its values in one.")
        factors[key] = values.split(",")
    name = Path(recipe).stem
    source = "--set or --vary" if factors else "--set"
    trials = _trials("" if factors else name, recipe, (), overrides, factors, seeds, None, source)
    _check_names(trials, "--vary")
    return Suite(name, "", trials)


def _trials(
    name: str,
    recipe: str,
    settings: Sequence[str],
    overrides: Sequence[str],
    vary: dict[str, list[Any]],
    seeds: int,
    published: Figure | None,
    source: str,
) -> list[Trial]:
    """Of a row, or of one for each combination of `vary`. source: of the settings, for errors."""
    settings = [*settings, *overrides]
    if empty := next((key for key, values in vary.items() if not values), None):
        raise RecipeError(f"vary.{empty}: there is no value to try.")
    if "seed" in vary or any(text.partition("=")[0].strip() == "seed" for text in settings):
        raise RecipeError(
            "seed: every row runs the seeds 0 to N-1. Give their number as `seeds` in the suite or "
            "by --seeds N."
        )
    _check_number(seeds * math.prod(map(len, vary.values())))
    trials = []
    for values in itertools.product(*vary.values()):
        texts = [v if isinstance(v, str) else json.dumps(v) for v in values]
        factors = dict(zip(vary, texts, strict=True))
        chosen = [f"{k}={v}" for k, v in factors.items()]
        if changing := next((text for text in overrides if _changes(text, chosen)), None):
            raise RecipeError(
                f"--set {changing}: the rows vary that key ({', '.join(chosen)}). Leave it out "
                "here, or vary other values."
            )
        label = " ".join(filter(None, [name, *chosen]))
        for seed in range(seeds):
            place = source if label in ("", Path(recipe).stem) else f"{source}, row '{label}'"
            resolved = load_recipe(recipe, [*settings, *chosen, f"seed={seed}"], place)
            trials.append(Trial(label, factors, seed, resolved, published))
    return trials


def _changes(override: str, settings: Sequence[str]) -> bool:
    """Whether a setting after these sets what they have set, to another value."""
    before, after = (override_layer(s).data for s in ([override, *settings], [*settings, override]))
    return before != after


def _check_distinct(trials: Sequence[Trial], replaced: set[str], path: Path) -> None:
    """Refuse rows that are the same once the command line has replaced settings of theirs."""
    seen: dict[str, str] = {}
    for trial in trials:
        plain = trial.recipe.model_copy(update={"description": ""})
        other = seen.setdefault(json.dumps(plain.as_dict(), sort_keys=True), trial.row)
        if other != trial.row and replaced & {other, trial.row}:
            raise RecipeError(
                f"--set: rows '{other}' and '{trial.row}' of {path} would be the same, as it "
                "replaces a setting of theirs. Leave that out, or copy the suite without one of "
                "them."
            )


def _check_number(trials: int) -> None:
    if trials > MOST_TRIALS:
        raise RecipeError(f"{trials:,} runs were asked for; a suite has at most {MOST_TRIALS:,}.")


def _check_names(trials: list[Trial], source: str) -> None:
    """Refuse rows that would write into one folder, outside the suite's, or over its table."""
    seen: dict[Path, str] = {}
    for trial in trials:
        name = trial.folder.parent.name
        if ".." in trial.folder.parts or name in TABLES or len(name.encode()) > LONGEST_NAME:
            raise RecipeError(
                f"{source}: rows: '{trial.row}' cannot name a folder below the suite's. Take "
                f"another name, of at most {LONGEST_NAME} bytes."
            )
        if trial.folder in seen:
            raise RecipeError(f"{source}: rows: two rows are both called '{trial.row}'")
        seen[trial.folder] = trial.row
