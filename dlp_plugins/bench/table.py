"""The table of a suite: a line a row, over its seeds; as CSV, Markdown and JSON."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dlp_plugins.bench.runner import Result
from dlp_plugins.bench.suite import Figure
from dlp_plugins.training.folder import write_json, write_text

# Column titles of the errors, in the order shown; a column that no run filled is left out.
ERRORS = {
    "supervised_test_error": "stage one",
    "supervised_teacher_test_error": "stage one, teacher",
    "test_error": "error",
    "teacher_test_error": "teacher",
    "test_error_top5": "error, top 5",
    "teacher_test_error_top5": "teacher, top 5",
    "best_test_error": "best",
    "best_teacher_test_error": "best, teacher",
}
OTHERS = {"pseudo_label_accuracy": "pseudo-labels right", "seconds": "seconds"}


@dataclass
class Line:
    """One row over its seeds.

    values: for each column the seeds' values, in percent or seconds. published: mean and deviation.
    """

    row: str
    published: Figure | None
    values: dict[str, list[float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    @property
    def runs(self) -> int:
        return max((len(v) for v in self.values.values()), default=0)

    def mean_and_deviation(self, column: str) -> Figure | None:
        """Mean and sample standard deviation (None for a single run)."""
        values = self.values.get(column)
        if not values:
            return None
        return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None


def collect(results: Iterable[Result]) -> list[Line]:
    """Results by row, in the order of the suite."""
    lines: dict[str, Line] = {}
    for result in results:
        cell = result.cell
        line = lines.setdefault(cell.row, Line(cell.row, cell.published))
        if result.failure:
            line.failures.append(f"seed {cell.seed}: {result.failure}")
        for column in {**ERRORS, **OTHERS}:
            if result.summary and column in result.summary:
                line.values.setdefault(column, []).append(result.summary[column])
    return list(lines.values())


def columns(lines: Sequence[Line]) -> dict[str, str]:
    """Keys and titles of the columns that some run filled."""
    everything = {**ERRORS, **OTHERS}
    return {k: title for k, title in everything.items() if any(k in x.values for x in lines)}


def header(lines: Sequence[Line]) -> list[str]:
    titles = ["row", "runs", *columns(lines).values()]
    return [*titles, "published"] if any(x.published for x in lines) else titles


def cells(line: Line, lines: Sequence[Line]) -> list[str]:
    """The texts of one row."""
    shown = [line.row, str(line.runs)]
    for column in columns(lines):
        figure = line.mean_and_deviation(column)
        digits = 1 if column == "seconds" else 2
        shown.append(_figure(figure, digits) if figure else ("failed" if line.failures else "-"))
    if any(x.published for x in lines):
        shown.append(_figure(line.published, 2) if line.published else "-")
    return shown


def _figure(figure: Figure, digits: int) -> str:
    mean, deviation = figure
    text = f"{mean:.{digits}f}"
    return text if deviation is None else f"{text} ± {deviation:.{digits}f}"


def to_markdown(lines: Sequence[Line]) -> str:
    titles = header(lines)
    rows = [titles, ["---"] + ["---:"] * (len(titles) - 1), *(cells(x, lines) for x in lines)]
    text = "\n".join("| " + " | ".join(r) + " |" for r in rows) + "\n"
    failures = [f"- {x.row}, {f}" for x in lines for f in x.failures]
    return text + ("\nFailed:\n\n" + "\n".join(failures) + "\n" if failures else "")


def to_csv(lines: Sequence[Line]) -> str:
    """A line a row: mean and standard deviation of each column apart, for further computation."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    keys = columns(lines)
    figures = [f"{k}_{part}" for k in keys for part in ("mean", "std")]
    writer.writerow(["row", "runs", "failed", *figures, "published_mean", "published_std"])
    for x in lines:
        numbers: list[Any] = []
        for key in keys:
            numbers += x.mean_and_deviation(key) or (None, None)
        writer.writerow([x.row, x.runs, len(x.failures), *numbers, *(x.published or (None, None))])
    return out.getvalue()


def write(folder: Path, lines: Sequence[Line], receipt: dict[str, Any]) -> list[Path]:
    """results.md, results.csv and results.json below `folder`.

    receipt: what the numbers depend on (command, environment); goes into the JSON file.
    """
    paths = [folder / f"results.{ending}" for ending in ("md", "csv", "json")]
    write_text(paths[0], to_markdown(lines))
    write_text(paths[1], to_csv(lines))
    write_json(paths[2], {**receipt, "rows": [asdict(x) for x in lines]})
    return paths
