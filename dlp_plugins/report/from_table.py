"""What a table of labels tells: of `dlp propagate`, `dlp assign`, `dlp predict`, or of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlp_plugins.embeddings._files import check_file, pyarrow, read_csv, readable
from dlp_plugins.embeddings.features import open_embeddings
from dlp_plugins.embeddings.ids import Ids
from dlp_plugins.embeddings.labels import LabelFile, read_labels
from dlp_plugins.embeddings.table import FORMATS, FORMULA
from dlp_plugins.errors import DataError
from dlp_plugins.inputs import UNLABELED
from dlp_plugins.labeling.images import open_images
from dlp_plugins.report.map import MOST_POINTS
from dlp_plugins.report.pictures import smaller
from dlp_plugins.report.points import Absent, Embedded, Points, Thumbnail, sample

CERTAINTIES = ("probability", "certainty")  # the first that is there
NAMES = ("id", "file")
USED = ("label", *CERTAINTIES, *NAMES, "index", "given")


@dataclass(frozen=True)
class TableReading:
    name: str
    points: Points
    embedded: Embedded | Absent
    thumbnail: Thumbnail | Absent


def read_table(
    path: Path,
    *,
    embeddings: Path | None = None,
    key: str | None = None,
    images: Path | None = None,
    labels: Path | None = None,
    truth: Path | None = None,
) -> TableReading:
    """Read a table, and the files that belong to its points.

    Args:
        embeddings: a row per row of the table; `key` as of `open_embeddings`.
        images: the folder of the images, as `open_images` takes it.
        labels, truth: known and true labels, as `read_labels` takes them.

    Raises:
        DataError, FeatureError, LabelError: something cannot be read, or does not fit the table.
    """
    columns = _columns(path)
    n = len(columns["label"])
    named = next((columns[name] for name in NAMES if name in columns), None)
    ids = None if named is None else Ids(named)
    known = None if labels is None else read_labels(labels, n, ids=ids)
    true = None if truth is None else read_labels(truth, n, ids=ids)
    classes = _classes(columns["label"], known, true)
    number = {name: i for i, name in enumerate(classes)}
    assigned = np.array([number.get(x, UNLABELED) for x in columns["label"]], dtype=np.int64)
    given = _given(columns)
    if known is not None:
        own = _renumbered(known, number)
        given = own != UNLABELED
        assigned[given] = own[given]
    title = next(c for c in CERTAINTIES if c in columns)
    names = named or [f"point {i}" for i in columns.get("index", range(n))]
    points = Points(
        "points", title, assigned, _certainties(path, columns[title]), classes, names, given,
        None if true is None else _renumbered(true, number),
    )  # fmt: skip
    return TableReading(
        path.name, points, _embedded(embeddings, key, points), _thumbnails(images, n, ids)
    )


def _columns(path: Path) -> dict[str, list[Any]]:
    """The columns in USED as text; None where a cell is empty."""
    check_file(path, FORMATS, "tables of labels")
    with readable(path):
        if path.suffix == ".parquet":
            _, pq = pyarrow()
            there = [c for c in pq.ParquetFile(path).schema_arrow.names if c in USED]
            table = pq.read_table(path, columns=there)
            found = {
                name: [None if x is None else str(x) for x in table.column(name).to_pylist()]
                for name in there
            }
        else:
            header, *rows = read_csv(path)
            width = len(header)
            if odd := [i for i, row in enumerate(rows) if len(row) != width]:
                first = odd[0]
                raise DataError(f"{path}, line {first + 2}: {len(rows[first])} cells, not {width}.")
            found = {
                name: [_plain(row[at]) for row in rows]
                for at, name in enumerate(header)
                if name in USED
            }
    missing = "label" not in found or not found.keys() & set(CERTAINTIES)
    if missing or not found["label"]:
        raise DataError(
            f"{path}: no table of labels: it needs rows, a column 'label', and 'certainty' or "
            "'probability', as `dlp propagate` and `dlp predict` write them."
        )
    return found


def _plain(cell: str) -> str | None:
    """A cell as it was before `table.harmless`."""
    if cell.startswith("'") and FORMULA.match(cell[1:]):
        return cell[1:]
    return cell or None


def _classes(
    labels: Sequence[str | None], known: LabelFile | None, true: LabelFile | None
) -> list[str]:
    found = {label for label in labels if label is not None}
    for file in (known, true):
        if file is not None:
            found |= {str(c) for c in file.classes}
    return sorted(found, key=lambda c: (not c.isdecimal(), int(c) if c.isdecimal() else 0, c))


def _renumbered(file: LabelFile, number: dict[str, int]) -> np.ndarray:
    own = np.array([*(number[str(c)] for c in file.classes), UNLABELED], dtype=np.int64)
    return own[file.labels.numpy()]  # -1 is the last


def _given(columns: dict[str, list[Any]]) -> np.ndarray | None:
    if "given" not in columns:
        return None
    return np.array([str(cell).lower() == "true" for cell in columns["given"]])


def _certainties(path: Path, cells: list[Any]) -> np.ndarray:
    try:
        found = np.array([np.nan if cell is None else float(cell) for cell in cells])
    except ValueError as error:
        raise DataError(f"{path}: a certainty is no number: {error}.") from None
    return np.nan_to_num(found).clip(0, 1)


def _embedded(path: Path | None, key: str | None, points: Points) -> Embedded | Absent:
    if path is None:
        return Absent(
            "The map and the suspicious labels need the embeddings: give them with --embeddings."
        )
    source = open_embeddings(path, key)
    if source.points != len(points):
        raise DataError(
            f"{path} holds {source.points:,} points, but the table has {len(points):,} rows; they "
            "must belong together."
        )
    which = sample(len(points), np.flatnonzero(points.known), MOST_POINTS)
    return Embedded(source.load().numpy()[which], which)


def _thumbnails(folder: Path | None, n: int, ids: Ids | None) -> Thumbnail | Absent:
    if folder is None:
        return Absent("Images are not shown: give their folder with --images.")
    images = open_images(folder, n, ids)
    return lambda point: smaller(images.thumbnail(point))
