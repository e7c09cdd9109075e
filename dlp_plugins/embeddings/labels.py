"""Partial labels from a file: numbers or names, blank or -1 where there is none."""

from __future__ import annotations

import numbers
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlp_plugins.embeddings._files import (
    check_file,
    load_array,
    parquet_columns,
    read_csv,
    read_member,
    read_parquet,
    readable,
)
from dlp_plugins.embeddings.ids import COLUMN, FILE, Ids, to_ids
from dlp_plugins.embeddings.soft import check_weights, to_distributions
from dlp_plugins.errors import DataError, LabelError
from dlp_plugins.inputs import UNLABELED
from dlp_plugins.propagation.beliefs import best_labels, soft_given
from dlp_plugins.refiners.contract import Given

FORMATS = (".csv", ".npy", ".npz", ".parquet")
TOO_LARGE = 2**64
MOST_EMPTY_CLASSES = 100_000  # so many classes may be more than there are points


@dataclass(frozen=True)
class LabelFile:
    """Partial labels of n points.

    labels: [n] int64, position in `classes` (of the largest share), -1 where unlabelled.
    classes: names (str) or numbers (int) as the file gives them, in ascending order.
    ids: of the points, where they are known from the embeddings or from this file.
    given: distributions and weights of the labelled points; None where labels are plain.
    """

    labels: Tensor
    classes: list[str] | list[int]
    ids: Ids | None = None
    given: Given | None = None


@dataclass(frozen=True)
class _Table:
    """A file's columns: a value per row, and where given the row's point by position or by id."""

    values: np.ndarray
    index: list[Any] | None = None
    ids: list[Any] | None = None
    first_line: int | None = None  # line of the file of the first row, in a CSV
    weights: np.ndarray | None = None  # of rows, as the file holds them


def read_labels(
    path: Path,
    points: int,
    num_classes: int | None = None,
    ids: Ids | None = None,
    several: bool = False,
) -> LabelFile:
    """Partial labels of `points` points.

    A CSV file holds one column with a row per point, or columns `index` (from 0) or `id`, and
    `label`, with rows for the points that have a label. A header is optional for one column and
    for index and label. A Parquet file holds the same columns. Where embeddings have no ids, a
    column `id` with a row per point gives them theirs.

    With a column `weight` each label counts as much as its weight, 0 leaves it out. Then a point
    may have several rows: its labels share its weight, the sum of theirs. A .npy or .npz array
    [points, classes] holds the share of each class, a row of zeros for a point without a label.

    Text is a number only where every cell reads back the same ('007' does not); else all are names.

    Args:
        points: how many points there are.
        num_classes: with it, the classes are 0..num_classes-1, labelled points or not.
        ids: of the points.
        several: a point may have several labels, each of them whole (multi-label).

    Raises:
        LabelError: wrong number, out of range, an unknown id, not whole numbers or names, or no
            label at all.
        DataError: no such file, unknown type, empty, truncated, or ambiguous.
    """
    check_file(path, FORMATS, "labels")
    if num_classes is not None and num_classes > max(points, MOST_EMPTY_CLASSES):
        raise LabelError(
            f"{num_classes:,} classes were asked for of {points:,} points; at most "
            f"{max(points, MOST_EMPTY_CLASSES):,} can be had."
        )
    with readable(path):
        if path.suffix == ".csv":
            table = _read_csv(path)
        elif path.suffix == ".parquet":
            table = _read_parquet(path)
        else:
            array = np.asarray(load_array(path, ndim=1, preferred="label"))
            if array.ndim == 2 and array.shape[1] > 1:
                return _read_shares(path, array, points, num_classes, ids, several)
            table = _Table(array, weights=read_member(path, "weight"))
    if ids is None and table.ids is not None and len(table.ids) == points:
        ids = to_ids(table.ids, points, path)
    rows = _rows(path, table, points, ids, several or table.weights is not None)
    known, values, names = _to_classes(path, table.values, num_classes, rows)
    if not known.any():
        raise LabelError(f"{path}: no point is labelled; label propagation needs at least one.")
    if several or table.weights is not None:
        weights = check_weights(path, table.weights, known)
        given = to_distributions(path, rows[known], values, weights, len(names), whole=several)
        return LabelFile(best_labels(given, points), names, ids, given)
    labels = np.full(points, UNLABELED, dtype=np.int64)
    labels[rows[known]] = values
    return LabelFile(torch.from_numpy(labels), names, ids)


def _read_shares(
    path: Path,
    shares: np.ndarray,
    points: int,
    num_classes: int | None,
    ids: Ids | None,
    several: bool,
) -> LabelFile:
    """From an array [points, classes]."""
    if len(shares) != points or num_classes not in (None, shares.shape[1]):
        wanted = f"[{points:,}, {num_classes or 'classes'}]"
        raise LabelError(f"{path}: shares of classes must be {wanted}; found {list(shares.shape)}.")
    try:
        given = soft_given(shares, normalize=not several)
    except LabelError as error:
        raise LabelError(f"{path}: {error}") from None
    if len(given.points) == 0:
        raise LabelError(f"{path}: no point is labelled; label propagation needs at least one.")
    return LabelFile(best_labels(given, points), list(range(shares.shape[1])), ids, given)


# -- columns of a file --------------------------------------------------------------------------


def _read_csv(path: Path) -> _Table:
    rows = read_csv(path)
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    if COLUMN not in header:
        header = [COLUMN if name == FILE else name for name in header]
    width = max(1, *map(len, rows)) if rows else 1
    if named := "label" in header:
        rows = rows[1:]
        names = ["label", "index", "id", "weight"]
        at = {name: header.index(name) for name in names if name in header}
    elif width <= 2:
        at = {"label": width - 1} | ({"index": 0} if width == 2 else {})
    else:
        raise LabelError(f"{path}: has {len(header)} columns; name the one of labels 'label'.")
    first_line = 2 if named else 1
    if at.keys() <= {"label", "weight"}:  # a blank line is a point without a label
        columns = {
            name: np.array([row[i] if len(row) > i else "" for row in rows], dtype=object)
            for name, i in at.items()
        }
        return _Table(columns["label"], first_line=first_line, weights=columns.get("weight"))
    for line, row in enumerate(rows, start=first_line):
        if row and len(row) <= max(at.values()):
            raise LabelError(
                f"{path}, line {line}: expected {' and '.join(sorted(at))}, found "
                f"{','.join(row)!r}."
            )
    cells = {name: [row[i].strip() if row else "" for row in rows] for name, i in at.items()}
    return _Table(
        np.array(cells["label"], dtype=object),
        cells.get("index"),
        cells.get("id"),
        first_line,
        np.array(cells["weight"], dtype=object) if "weight" in cells else None,
    )


def _read_parquet(path: Path) -> _Table:
    names = parquet_columns(path)
    if "label" not in names and len(names) != 1:
        raise DataError(
            f"{path}: name the column of labels 'label'; it has {', '.join(names[:8])}."
        )
    values = read_parquet(path, "label" if "label" in names else names[0])
    index, ids = (
        read_parquet(path, name).tolist() if name in names else None for name in ("index", "id")
    )
    weights = read_parquet(path, "weight") if "weight" in names else None
    return _Table(values, index, ids, weights=weights)


# -- which point a row belongs to ---------------------------------------------------------------


def _rows(
    path: Path, table: _Table, points: int, ids: Ids | None, several: bool = False
) -> np.ndarray:
    """[rows] int64: the point of each row of the table; one point, one label unless `several`."""
    n = len(table.values)
    if table.index is None and (ids is None or table.ids is None):
        if table.values.ndim != 1 or n != points:
            hint = _hint(path, table, points)
            what = f"{n:,} labels" if n != 1 else "one label"
            if table.values.ndim != 1:
                what = f"labels of shape {list(table.values.shape)}"
            raise LabelError(f"{path}: holds {what} for {points:,} points.{hint}")
        return np.arange(points)
    found: dict[int, Any] = {}
    rows = np.full(n, -1, dtype=np.int64)
    for i, value in enumerate(table.values):
        where = (
            f"{path}, row {i}"
            if table.first_line is None
            else f"{path}, line {table.first_line + i}"
        )
        if ids is not None and table.ids is not None:
            if table.ids[i] in (None, "") and _is_blank(value):
                continue  # a blank line
            row = ids.row_of(table.ids[i], where)
        else:
            assert table.index is not None
            if table.index[i] in (None, "") and _is_blank(value):
                continue
            row = _position(table.index[i], points, where)
        if row in found and not _same(found[row], value) and not several:
            raise LabelError(
                f"{where}: point {row} has two labels, '{found[row]}' and '{value}'. If it has, "
                "add a column 'weight' with the share of each, or --multi-label."
            )
        found[row] = value
        rows[i] = row
    return rows


def _hint(path: Path, table: _Table, points: int) -> str:
    n = len(table.values)
    if table.ids is not None:
        return (
            " It names points by id, but these embeddings have no ids: give them with --ids FILE."
        )
    if path.suffix == ".csv" and n and all(";" in str(value) for value in table.values):
        return " Its columns are separated by ';': save it with ','."
    if path.suffix == ".csv" and n == points + 1:
        return f" If the first line, '{table.values[0]}', is a header, call that column 'label'."
    return ""


def _position(value: Any, points: int, where: str) -> int:
    whole = (
        re.fullmatch(r"\s*[+-]?[0-9]+\s*", value)
        if isinstance(value, str)
        else isinstance(value, numbers.Real) and value == value // 1
    )
    if not whole:
        raise LabelError(
            f"{where}: '{value}' is not an index. If it is a header, name the columns 'index' and "
            "'label'."
        )
    index = int(value)
    if not 0 <= index < points:
        raise LabelError(f"{where}: index {index} is outside 0..{points - 1}.")
    return index


def _same(a: Any, b: Any) -> bool:
    return a == b or (_is_blank(a) and _is_blank(b))


def _is_blank(value: Any) -> bool:
    return value is None or value != value or (isinstance(value, str) and not value.strip())


# -- which class a value is ---------------------------------------------------------------------


def _to_classes(
    path: Path, values: np.ndarray, num_classes: int | None, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, list[str] | list[int]]:
    """Which rows hold a label [rows] bool; the classes of these; the names of all classes."""
    if values.dtype.kind in "OUS":
        known, given = _numbers_or_names(path, values)
    else:
        values = values.astype(np.int8) if values.dtype.kind == "b" else values
        known = (values == values) & (values != UNLABELED)  # NaN is not equal to itself
        given = values[known]
    if given.dtype.kind == "U":
        if num_classes is not None:
            raise LabelError(
                f"{path}: the number of classes can be given for numbered classes only; these have "
                "names."
            )
        names, own = np.unique(given, return_inverse=True)
        return known, own, names.tolist()
    wrong = (given < 0) | (given >= (TOO_LARGE if num_classes is None else num_classes))
    if given.dtype.kind == "f":
        wrong = wrong | (given != np.floor(given))
    if wrong.any():
        at = int(np.argmax(wrong))
        allowed = "whole numbers from 0" if num_classes is None else f"0..{num_classes - 1}"
        raise LabelError(
            f"{path}: label {given[at]} of point {rows[known][at]:,} is not among {allowed} (blank "
            "or -1 means unlabelled)."
        )
    given = given.astype(np.uint64)
    if num_classes is not None:
        return known, given.astype(np.int64), list(range(num_classes))
    numbers, own = np.unique(given, return_inverse=True)
    return known, own, numbers.tolist()


def _numbers_or_names(path: Path, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which cells hold a label [rows] bool, and these labels: numbers, or names (str)."""
    cells = [_text(path, value) for value in values.tolist()]
    known = np.array([cell not in ("", str(UNLABELED)) for cell in cells], dtype=bool)
    given = [cell for cell in cells if cell not in ("", str(UNLABELED))]
    numbers = _numbers(given)
    if numbers is None:
        return known, np.array(given, dtype=str)
    known[known] = [n == n and n != UNLABELED for n in numbers]
    labels = [n for n in numbers if n == n and n != UNLABELED]
    exact = all(isinstance(n, int) for n in labels)  # int64 and float64 do not hold every uint64
    return known, np.array(labels, dtype=object if exact else float)


def _text(path: Path, value: Any) -> str:
    """A cell as text without blanks around it; '' for an empty one."""
    if _is_blank(value):
        return ""
    if isinstance(value, bytes):
        try:
            return value.decode().strip()
        except UnicodeDecodeError:
            raise LabelError(f"{path}: a label is not text in UTF-8: {value!r}.") from None
    if not isinstance(value, (str, int, float)):
        raise LabelError(f"{path}: labels must be numbers or names; found {value!r}.")
    return str(int(value) if isinstance(value, bool) else value).strip()


def _numbers(cells: list[str]) -> list[int] | list[float] | None:
    """The numbers that the cells hold, or None where any is a name.

    A cell is a number only if that reads back the same: '007', '1_0' and '1e1' are names, and so is
    one too large for uint64. Where '3' and '3.0' occur, all are names; 'nan' is no label.
    """
    numbers = [_number(cell) for cell in cells]
    if None in numbers:
        return None
    given = [n for n in numbers if n == n]
    if len({type(n) for n in given}) == 2 and all(n % 1 == 0 for n in given):  # type: ignore
        return None
    return numbers  # type: ignore[return-value]


def _number(cell: str) -> int | float | None:
    for read in (int, float):
        try:
            number = read(cell)
        except ValueError:
            continue
        if str(number) == cell:
            return None if isinstance(number, int) and number >= TOO_LARGE else number
    return None
