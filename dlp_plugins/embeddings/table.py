"""The table of pseudo-labels: a row a point, columns label, certainty, margin and class scores."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from dlp_plugins._writing import replacing
from dlp_plugins.embeddings._files import pyarrow
from dlp_plugins.embeddings.chunked import Outcome
from dlp_plugins.embeddings.scores import row_blocks
from dlp_plugins.errors import UsageError

FORMATS = (".csv", ".parquet")
Rows = tuple[list, np.ndarray, np.ndarray, np.ndarray | None]


def check_out(path: Path, overwrite: bool) -> None:
    """Refuse a path that cannot be written, before hours are spent on what should go there.

    Raises:
        UsageError: unknown type, no such folder, or a file that is there already.
        MissingDependency: Parquet without pyarrow.
    """
    if path.suffix not in FORMATS:
        raise UsageError(f"{path}: the table is written as {' or '.join(FORMATS)}.")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}.")
    if path.is_dir():
        raise UsageError(f"{path}: is a folder.")
    if path.exists() and not overwrite:
        raise UsageError(f"{path}: exists already. Add --overwrite to replace it.")
    if path.suffix == ".parquet":
        pyarrow()


def write_table(
    path: Path,
    outcome: Outcome,
    classes: list[str] | list[int],
    scores: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Write the table whole or not at all: into a temporary file beside it, then renamed.

    Columns: `label` (a class as the label file gives it; empty where no label reaches),
    `certainty`, `margin`, and with `scores` a column `score_<class>` of class probabilities.

    Raises:
        SaveError: the disk is full or the folder cannot be written; an old file is as it was.
    """
    names = [f"score_{c}" for c in classes] if scores else []
    blocks = _rows(outcome, classes, scores, progress)
    with replacing(path) as temporary:
        if path.suffix == ".parquet":
            _write_parquet(temporary, blocks, names, classes)
        else:
            _write_csv(temporary, blocks, names)


def _rows(
    outcome: Outcome,
    classes: list[str] | list[int],
    scores: bool,
    progress: Callable[[int], None],
) -> Iterator[Rows]:
    for start, stop in row_blocks(len(outcome.labels), outcome.scores.num_classes):
        part = slice(start, stop)
        yield (
            [classes[i] if i >= 0 else None for i in outcome.labels[part].tolist()],
            outcome.certainty[part].numpy(),
            outcome.margin[part].numpy(),
            outcome.scores.probabilities(start, stop).numpy() if scores else None,
        )
        progress(stop)


def _write_csv(path: Path, blocks: Iterator[Rows], names: list[str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["label", "certainty", "margin", *names])
        for labels, certainty, margin, scores in blocks:
            columns = [certainty, margin, *(scores.T if scores is not None else ())]
            texts = [[f"{x:.7g}" for x in column.tolist()] for column in columns]
            writer.writerows(zip(labels, *texts, strict=True))


def _write_parquet(
    path: Path, blocks: Iterator[Rows], names: list[str], classes: list[str] | list[int]
) -> None:
    pa, pq = pyarrow()
    label = pa.int64() if isinstance(classes[0], int) else pa.string()
    numbers = ["certainty", "margin", *names]
    schema = pa.schema([("label", label), *((name, pa.float32()) for name in numbers)])
    with pq.ParquetWriter(path, schema) as writer:
        for labels, certainty, margin, scores in blocks:
            columns = [certainty, margin, *(scores.T if scores is not None else ())]
            writer.write_table(pa.table([pa.array(labels, label), *columns], schema=schema))
