"""The table of a suite: one line per row, over its seeds; as CSV, Markdown and JSON."""

from __future__ import annotations

import csv
import io
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dlp_plugins._files.reading import read_json
from dlp_plugins.bench.runner import Result
from dlp_plugins.bench.suite import TABLES, Figure, Suite
from dlp_plugins.embeddings.table import harmless
from dlp_plugins.errors import DataError, RunFolderError
from dlp_plugins.notebook.html import table as html_table
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
OTHERS = {"pseudo_label_accuracy": "pseudo-label accuracy", "seconds": "seconds"}


@dataclass
class RowResult:
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


class Table(list[RowResult]):
    """The rows; a list, but for how a notebook shows it."""

    def _repr_html_(self) -> str:
        failed = "; ".join(f"{row.row}, {failure}" for row in self for failure in row.failures)
        texts = [row_texts(row, self) for row in self]
        title = f"{sum(row.runs for row in self):,} runs"
        return html_table(title, texts, header(self), f"Failed: {failed}" if failed else "")


def collect(results: Iterable[Result]) -> Table:
    """Results by row, in the order of the suite."""
    rows: dict[str, RowResult] = {}
    for result in results:
        trial = result.trial
        row = rows.setdefault(trial.row, RowResult(trial.row, trial.published))
        if result.failure:
            row.failures.append(f"seed {trial.seed}: {result.failure}")
        for column in {**ERRORS, **OTHERS}:
            if result.summary and column in result.summary:
                row.values.setdefault(column, []).append(result.summary[column])
    return Table(rows.values())


def columns(rows: Sequence[RowResult]) -> dict[str, str]:
    """Keys and titles of the columns that some run filled."""
    everything = {**ERRORS, **OTHERS}
    return {k: title for k, title in everything.items() if any(k in r.values for r in rows)}


def header(rows: Sequence[RowResult]) -> list[str]:
    titles = ["row", "runs", *columns(rows).values()]
    return [*titles, "published"] if any(r.published for r in rows) else titles


def row_texts(row: RowResult, rows: Sequence[RowResult]) -> list[str]:
    """The texts of one row of the table that `rows` make."""
    shown = [row.row, str(row.runs)]
    for column in columns(rows):
        figure = row.mean_and_deviation(column)
        digits = 1 if column == "seconds" else 2
        shown.append(_figure(figure, digits) if figure else ("failed" if row.failures else "-"))
    if any(r.published for r in rows):
        shown.append(_figure(row.published, 2) if row.published else "-")
    return shown


def _figure(figure: Figure, digits: int) -> str:
    mean, deviation = figure
    text = f"{mean:.{digits}f}"
    return text if deviation is None else f"{text} ± {deviation:.{digits}f}"


def to_markdown(rows: Sequence[RowResult]) -> str:
    titles = header(rows)
    cells = [[_cell(text) for text in row_texts(row, rows)] for row in rows]
    table = [titles, ["---"] + ["---:"] * (len(titles) - 1), *cells]
    text = "\n".join("| " + " | ".join(line) + " |" for line in table) + "\n"
    failures = [
        f"- {_one_line(f'{row.row}, {failure}')}" for row in rows for failure in row.failures
    ]
    return text + ("\nFailed:\n\n" + "\n".join(failures) + "\n" if failures else "")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    """On one line, and without a sign that would end a cell of the table."""
    return _one_line(text).replace("\\", "\\\\").replace("|", "\\|")


def to_csv(rows: Sequence[RowResult]) -> str:
    """One line per row: mean and standard deviation of each column apart, to compute with."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    keys = columns(rows)
    figures = [f"{k}_{part}" for k in keys for part in ("mean", "std")]
    writer.writerow(["row", "runs", "failed", *figures, "published_mean", "published_std"])
    for row in rows:
        numbers: list[Any] = []
        for key in keys:
            numbers += row.mean_and_deviation(key) or (None, None)
        published = row.published or (None, None)
        writer.writerow([harmless(row.row), row.runs, len(row.failures), *numbers, *published])
    return out.getvalue()


def write(folder: Path, rows: Sequence[RowResult], receipt: dict[str, Any]) -> list[Path]:
    """results.md, results.csv and results.json below `folder`.

    receipt: what the numbers depend on (command, environment); goes into the JSON file.

    Raises:
        RunFolderError: the table that is there holds more runs of a row, or is somebody's own; it
            is left as it is.
        SaveError: a file could not be written.
    """
    _check_ours(folder)
    if fewer := _fewer(folder, {row.row: row.runs for row in rows}):
        raise RunFolderError(
            f"The table in {folder} is left as it was: it holds more runs of {_listed(fewer)} "
            "than have finished now. Choose another folder with --out."
        )
    paths = [folder / name for name in TABLES]
    # First what shows that the others are ours: this may be broken off.
    write_json(paths[2], {**receipt, "rows": [asdict(row) for row in rows]})
    write_text(paths[0], to_markdown(rows))
    write_text(paths[1], to_csv(rows))
    return paths


def check_covers(folder: Path, suite: Suite) -> None:
    """Refuse a suite that lacks runs of the table in `folder`, before anything is trained.

    Raises:
        RunFolderError: the suite lacks a row or seeds, or the table is somebody's own.
        DataError: the table cannot be read.
    """
    _check_ours(folder)
    if fewer := _fewer(folder, Counter(trial.row for trial in suite.trials)):
        raise RunFolderError(
            f"{folder} holds a table with more runs of {_listed(fewer)} than this suite has. "
            "Choose another folder with --out."
        )


def _check_ours(folder: Path) -> None:
    """Raise RunFolderError where a file is called like the table's, and no suite wrote it."""
    *others, ours = (folder / name for name in TABLES)
    theirs = [path.name for path in others if path.exists()]
    if theirs and not ours.exists():
        raise RunFolderError(
            f"{folder} holds {' and '.join(theirs)} but no {ours.name}, so no suite wrote that. "
            "Move it elsewhere, or choose another folder with --out."
        )


def _fewer(folder: Path, runs: Mapping[str, int]) -> list[str]:
    """Rows of the table in `folder` that have more runs there."""
    path = folder / TABLES[2]
    if not path.is_file():
        return []
    try:
        before = read_json(path)["rows"]
        old = {r["row"]: RowResult(r["row"], None, r["values"]).runs for r in before}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"{path} cannot be read: {error}. Move it elsewhere, or choose another folder with "
            "--out."
        ) from error
    return [row for row, count in old.items() if count > runs.get(row, 0)]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more rows" if len(names) > 3 else ""
    return ", ".join(f"'{name}'" for name in names[:3]) + more
