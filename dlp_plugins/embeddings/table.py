"""The table of pseudo-labels: a row per point, with its position, id, label and certainty."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from dlp_plugins._files.writing import check_place, replacing
from dlp_plugins.embeddings._files import pyarrow
from dlp_plugins.embeddings.ids import Ids
from dlp_plugins.embeddings.scores import Probabilities

FORMATS = (".csv", ".parquet")
# What a spreadsheet would run as a formula; a number such as -5 is none.
FORMULA = re.compile(r"[=@\t\r]|[+-](?!\d*\.?\d*$)")


Blocks = Iterator[tuple[slice, np.ndarray | None]]


@dataclass(frozen=True)
class Column:
    """A column of the table.

    kind: 'int64', 'uint64', 'string', 'float32' or 'bool_'.
    values: those of a slice of rows; None is an empty cell.
    """

    name: str
    kind: str
    values: Callable[[slice], Sequence[Any] | np.ndarray]


class Labeled(Protocol):
    """What a table is written of.

    labels: [n] int64, position among the classes, -1 for none. certainty, margin: [n] float32.
    reached: [n] bool.
    """

    @property
    def labels(self) -> Tensor: ...
    @property
    def certainty(self) -> Tensor: ...
    @property
    def margin(self) -> Tensor: ...
    @property
    def reached(self) -> Tensor: ...
    @property
    def probabilities(self) -> Probabilities: ...


class Named(Protocol):
    """What classes and points are called."""

    @property
    def classes(self) -> list[str] | list[int]: ...
    @property
    def ids(self) -> Ids | None: ...


def check_out(
    path: Path, overwrite: bool, inputs: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Refuse a path that cannot be written, before time is spent on what should go there.

    Args:
        inputs: as `check_place` takes them.

    Raises:
        UsageError: unknown type, no such folder, a file that is there already, or an input.
        MissingDependency: Parquet without pyarrow.
    """
    check_place(path, FORMATS, "the table", overwrite, inputs)
    if path.suffix == ".parquet":
        pyarrow()


def write_table(
    path: Path,
    outcome: Labeled,
    given: Named,
    probabilities: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Write the table completely or not at all: into a temporary file beside it, then renamed.

    Columns: `index` (from 0), `id` where points have ids, `label` (a class as the label file names
    it; empty where there is none), `certainty`, `margin`, where asked for `probability` (that the
    label is right) and `unknown` (that the point has no known class), `reached` (over the graph;
    certainty is 0 if not), and with `probabilities` a column `probability_<class>` for each class.

    Raises:
        SaveError: the disk is full or the folder cannot be written; an old file is as it was.
    """
    names = [f"probability_{c}" for c in given.classes] if probabilities else []
    blocks = _blocks(outcome, bool(names), progress)
    write_blocks(path, _columns(outcome, given), names, blocks)


def write_blocks(path: Path, columns: list[Column], names: list[str], blocks: Blocks) -> None:
    """Write columns, and after them columns of float32 called `names` from the blocks' arrays."""
    write = _write_parquet if path.suffix == ".parquet" else _write_csv
    with replacing(path) as temporary:
        write(temporary, columns, names, blocks)


def write_rows(path: Path, columns: list[Column], rows: int) -> None:
    """Write columns of so many rows as a table, completely or not at all.

    Raises:
        SaveError: as `write_table`.
    """
    write = _write_parquet if path.suffix == ".parquet" else _write_csv
    with replacing(path) as temporary:
        write(temporary, columns, [], iter([(slice(0, rows), None)]))


def write_columns(path: Path, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> None:
    """Write a table of plain columns, completely or not at all.

    Args:
        columns: by name: float32 (NaN is an empty cell), or whole numbers or text (None is one).

    Raises:
        SaveError: as `write_table`.
    """

    def column(name: str, values: Any) -> Column:
        if isinstance(values, np.ndarray):
            kind = "float32"
        else:
            kind = _kind([value for value in values if value is not None])
        return Column(name, kind, lambda rows: values[rows])

    parts = [column(name, values) for name, values in columns.items()]
    write_rows(path, parts, max(len(values) for values in columns.values()))


def _columns(outcome: Labeled, given: Named) -> list[Column]:
    def label(rows: slice) -> list[Any]:
        assigned = outcome.labels[rows].tolist()
        return [given.classes[i] if i >= 0 else None for i in assigned]

    # of new points an index may know none
    held = {name: getattr(outcome, name, None) for name in ("probability", "unknown")}
    asked = [_numbers(name, values) for name, values in held.items() if values is not None]
    return [
        *point_columns(given),
        Column("label", _kind(given.classes), label),
        _numbers("certainty", outcome.certainty),
        _numbers("margin", outcome.margin),
        *asked,
        Column("reached", "bool_", lambda rows: outcome.reached[rows].numpy()),
    ]


def point_columns(given: Named) -> list[Column]:
    """`index`, and `id` where points have ids."""
    columns = [Column("index", "int64", lambda rows: range(rows.start, rows.stop))]
    if given.ids is not None:
        ids = given.ids.values
        columns.append(Column("id", _kind(ids), lambda rows: ids[rows]))
    return columns


def _numbers(name: str, values: Tensor) -> Column:
    return Column(name, "float32", lambda rows: values[rows].numpy())


def _kind(values: Sequence[Any]) -> str:
    if not values or not all(isinstance(value, int) for value in values):
        return "string"
    low, high = min(values), max(values)
    if low >= -(2**63) and high < 2**63:
        return "int64"
    return "uint64" if low >= 0 and high < 2**64 else "string"


def _blocks(outcome: Labeled, probabilities: bool, progress: Callable[[int], None]) -> Blocks:
    """Slices of rows, with their class probabilities [b, c] if these are written."""
    for rows in outcome.probabilities.blocks():
        yield rows, outcome.probabilities.rows(rows).numpy() if probabilities else None
        progress(rows.stop)


def _write_csv(path: Path, columns: list[Column], names: list[str], blocks: Blocks) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*(column.name for column in columns), *names])
        for rows, probabilities in blocks:
            texts = [_texts(column.kind, column.values(rows)) for column in columns]
            more = () if probabilities is None else probabilities.T
            texts += [_texts("float32", column) for column in more]
            writer.writerows(zip(*texts, strict=True))


def _texts(kind: str, values: Any) -> Any:
    if kind == "float32":
        return ["" if x != x else f"{x:.7g}" for x in values.tolist()]
    if kind == "bool_":
        return ["true" if x else "false" for x in values.tolist()]
    return [harmless(x) if isinstance(x, str) else x for x in values]


def harmless(text: str) -> str:
    """Text with an apostrophe before it where a spreadsheet would run it as a formula."""
    return f"'{text}" if FORMULA.match(text) else text


def _write_parquet(path: Path, columns: list[Column], names: list[str], blocks: Blocks) -> None:
    pa, pq = pyarrow()
    fields = [(column.name, getattr(pa, column.kind)()) for column in columns]
    schema = pa.schema([*fields, *((name, pa.float32()) for name in names)])
    with pq.ParquetWriter(path, schema) as writer:
        for rows, probabilities in blocks:
            arrays = [_array(pa, column, rows) for column in columns]
            more = () if probabilities is None else probabilities.T
            writer.write_table(pa.table([*arrays, *map(pa.array, more)], schema=schema))


def _array(pa: Any, column: Column, rows: slice) -> Any:
    values = column.values(rows)
    if column.kind == "string":
        values = [None if value is None else str(value) for value in values]
    return pa.array(values, getattr(pa, column.kind)(), from_pandas=True)  # NaN is an empty cell
