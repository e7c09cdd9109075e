"""What a user calls each point: a file name, a key of a database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dlp_plugins.embeddings._files import (
    check_file,
    load_array,
    parquet_columns,
    read_csv,
    read_parquet,
    readable,
)
from dlp_plugins.errors import DataError, LabelError

FORMATS = (".txt", ".csv", ".npy", ".npz", ".parquet")
COLUMN = "id"
FILE = "file"  # a column of file names is one of ids


@dataclass(frozen=True)
class Ids:
    """Ids of n points in their order, all different.

    values: [n] of str or int, as the file gives them.
    """

    values: list[str] | list[int]

    @cached_property
    def rows(self) -> dict[str, int]:
        """Row by id as text, as one file may hold numbers and another text; also without blanks
        around it, as those are lost in other files, where that is nobody else's."""
        found = {str(value): row for row, value in enumerate(self.values)}
        for row, value in enumerate(self.values):
            found.setdefault(str(value).strip(), row)
        return found

    def row_of(self, value: object, where: str) -> int:
        """The row of an id; LabelError, which begins with `where`, for an unknown one."""
        row = self.rows.get(str(value))
        if row is None:
            raise LabelError(f"{where}: there is no point with id {str(value)!r}.")
        return row


def read_ids(path: Path, points: int, strip: bool = True) -> Ids:
    """Ids from a file: a line per point (.txt), or a column `id` or only one column or array.

    strip: leave out blanks around them.

    Raises:
        DataError: no such file, unknown type, damaged; or another number of ids than points, a
            blank one, or one that occurs twice.
    """
    check_file(path, FORMATS, "ids")
    with readable(path):
        if path.suffix == ".txt":
            values: Sequence[Any] | np.ndarray = path.read_text(encoding="utf-8-sig").splitlines()
        elif path.suffix == ".csv":
            values = _csv_column(path)
        elif path.suffix == ".parquet":
            names = parquet_columns(path)
            if COLUMN not in names and len(names) != 1:
                raise DataError(f"{path}: call the column of ids '{COLUMN}'.")
            values = read_parquet(path, COLUMN if COLUMN in names else names[0])
        else:
            values = load_array(path, ndim=1, preferred=COLUMN)
    return to_ids(values, points, path, strip)


def beside(embeddings: Path) -> Path:
    """Where the ids of a file of embeddings are looked for: `x.ids.csv` beside `x.npy`."""
    return embeddings.with_name(f"{embeddings.stem}.ids.csv")


def to_ids(values: Sequence[Any] | np.ndarray, points: int, path: Path, strip: bool = True) -> Ids:
    """Ids from the values of a file, checked and stripped as `read_ids` does."""
    if np.ndim(values) != 1 or len(values) != points:
        found = "x".join(map(str, np.shape(values)))
        raise DataError(f"{path}: there are {points:,} points but {found} ids.")
    plain = values.tolist() if isinstance(values, np.ndarray) else list(values)
    if not all(type(value) is int for value in plain):
        if odd := [v for v in plain if v is not None and not isinstance(v, (str, int))]:
            raise DataError(f"{path}: ids must be text or whole numbers; found {odd[0]!r}.")
        plain = ["" if value is None else str(value) for value in plain]
        plain = [value.strip() for value in plain] if strip else plain
    first: dict[Any, int] = {}
    for row, value in enumerate(plain):
        if not str(value).strip():
            raise DataError(f"{path}: the id of row {row:,} (counted from 0) is blank.")
        if first.setdefault(value, row) != row:
            raise DataError(
                f"{path}: id {value!r} occurs in rows {first[value]:,} and {row:,} (counted from "
                "0); ids must differ."
            )
    return Ids(plain)


def _csv_column(path: Path) -> list[str]:
    rows = read_csv(path)
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    if named := [name for name in (COLUMN, FILE) if name in header]:
        at, rows = header.index(named[0]), rows[1:]
    elif max(map(len, rows), default=0) == 1:
        at = 0
    else:
        raise DataError(f"{path}: has {len(header)} columns; call the one of ids '{COLUMN}'.")
    return [row[at] if len(row) > at else "" for row in rows]
