"""Partial labels from a file: numbers or names, blank or -1 where there is none."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dlp_plugins.embeddings._files import check_file, load_array, pyarrow, readable
from dlp_plugins.errors import DataError, LabelError
from dlp_plugins.propagation import UNLABELED

FORMATS = (".csv", ".npy", ".npz", ".parquet")


@dataclass(frozen=True)
class Labels:
    """Partial labels of n points.

    index: [n] int64, position in `classes`, -1 where unlabelled.
    classes: names (str) or numbers (int) as the file gives them, in ascending order.
    """

    index: Tensor
    classes: list[str] | list[int]


def read_labels(path: Path, points: int, num_classes: int | None = None) -> Labels:
    """Partial labels of `points` points.

    A CSV file holds one column, a row a point, or `index,label` rows for the points that have one
    (index from 0). A header is optional; with one, the columns `label` and `index` are taken. A
    Parquet file holds a column `label`, or one column.

    Args:
        points: how many points there are.
        num_classes: with it, the classes are 0..num_classes-1, labelled points or not.

    Raises:
        LabelError: wrong number, out of range, not whole numbers or names, or none given.
        DataError: no such file, unknown type, empty, truncated, or ambiguous.
    """
    check_file(path, FORMATS, "labels")
    with readable(path):
        if path.suffix == ".csv":
            values = _read_csv(path, points)
        elif path.suffix == ".parquet":
            values = _read_parquet_column(path)
        else:
            values = np.asarray(load_array(path, ndim=1))
    if values.ndim != 1 or len(values) != points:
        raise LabelError(
            f"{path}: there are {points:,} points but labels of shape {list(values.shape)}."
            + _header_hint(path, values, points)
        )
    labels = _encode(path, values, num_classes)
    if not (labels.index != UNLABELED).any():
        raise LabelError(f"{path}: no point is labelled; label propagation needs at least one.")
    return labels


def _header_hint(path: Path, values: np.ndarray, points: int) -> str:
    if path.suffix == ".csv" and len(values) == points + 1:
        return f" If the first line, '{values[0]}', is a header, call that column 'label'."
    return ""


def _read_csv(path: Path, points: int) -> np.ndarray:
    """[n] of str: a value a point, '' for unlabelled."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.reader(file))
    header = [cell.strip().lower() for cell in rows[0]]
    label_at: int | None = None
    index_at: int | None = None
    if "label" in header:
        label_at, rows = header.index("label"), rows[1:]
        index_at = header.index("index") if "index" in header else None
    elif (width := max(1, *map(len, rows))) <= 2:
        label_at, index_at = width - 1, (0 if width == 2 else None)
    if label_at is None:
        raise LabelError(f"{path}: has {len(header)} columns; name the one of labels 'label'.")
    first_line = 2 if "label" in header else 1
    if index_at is None:
        # a blank line is a point without a label
        return np.array([r[label_at].strip() if len(r) > label_at else "" for r in rows], dtype=str)
    values: dict[int, str] = {}
    for line, row in enumerate(rows, start=first_line):
        if not row:
            continue
        where = f"{path}, line {line}"
        if len(row) <= max(index_at, label_at):
            raise LabelError(f"{where}: expected index and label, found {','.join(row)!r}.")
        try:
            index = int(row[index_at])
        except ValueError:
            raise LabelError(
                f"{where}: '{row[index_at]}' is not an index. If it is a header, name the columns "
                "'index' and 'label'."
            ) from None
        if not 0 <= index < points:
            raise LabelError(f"{where}: index {index} is outside 0..{points - 1}.")
        label = row[label_at].strip()
        if values.setdefault(index, label) != label:
            raise LabelError(
                f"{where}: point {index} has two labels, '{values[index]}' and '{label}'."
            )
    return np.array([values.get(i, "") for i in range(points)], dtype=str)


def _read_parquet_column(path: Path) -> np.ndarray:
    _, pq = pyarrow()
    names = pq.ParquetFile(path).schema_arrow.names
    if "label" not in names and len(names) != 1:
        raise DataError(
            f"{path}: name the column of labels 'label'; it has {', '.join(names[:8])}."
        )
    column = pq.read_table(path, columns=["label" if "label" in names else names[0]]).column(0)
    return column.to_numpy(zero_copy_only=False)  # empty cells become NaN or None


def _encode(path: Path, values: np.ndarray, num_classes: int | None) -> Labels:
    numbers = _as_numbers(values)
    if numbers is None:
        if num_classes is not None:
            raise LabelError(
                f"{path}: the number of classes can be given for numbered classes only; these have "
                "names."
            )
        names = np.array(["" if v is None or v != v else str(v).strip() for v in values], dtype=str)
        known = (names != "") & (names != str(UNLABELED))
        classes, own = np.unique(names[known], return_inverse=True)
        return Labels(_positions(known, own), classes.tolist())
    known = ~(np.isnan(numbers) | (numbers == UNLABELED))
    wrong = known & ((numbers != np.floor(numbers)) | (numbers < 0) | np.isinf(numbers))
    allowed = "whole numbers from 0"
    if num_classes is not None:
        wrong |= known & (numbers >= num_classes)
        allowed = f"0..{num_classes - 1}"
    if wrong.any():
        at = int(np.argmax(wrong))
        raise LabelError(
            f"{path}: label {values[at]} of point {at:,} is not among {allowed} (blank or -1 means "
            "unlabelled)."
        )
    given = numbers[known].astype(np.int64)
    classes, own = np.unique(given, return_inverse=True)
    if num_classes is not None:
        classes, own = np.arange(num_classes), given
    return Labels(_positions(known, own), classes.tolist())


def _as_numbers(values: np.ndarray) -> np.ndarray | None:
    """[n] float64 with NaN for unlabelled, or None where any value is a name."""
    if values.dtype.kind in "iuf":
        return values.astype(np.float64)
    cells = ["nan" if v is None or (isinstance(v, str) and not v.strip()) else v for v in values]
    try:
        return np.array([float(cell) for cell in cells])
    except (TypeError, ValueError):
        return None


def _positions(known: np.ndarray, own: np.ndarray) -> Tensor:
    index = np.full(len(known), UNLABELED, dtype=np.int64)
    index[known] = own
    return torch.from_numpy(index)
