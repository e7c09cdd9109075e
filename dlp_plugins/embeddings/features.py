"""Embeddings from files of several types, L2-normalised, a block of rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlp_plugins._files import npz
from dlp_plugins.embeddings._files import (
    AS_NPY,
    check_file,
    choose,
    load_array,
    pyarrow,
    read_member,
    read_parquet,
    readable,
)
from dlp_plugins.embeddings.ids import COLUMN, Ids, beside, read_ids, to_ids
from dlp_plugins.errors import DataError, FeatureError
from dlp_plugins.inputs import unit_rows
from dlp_plugins.units import counted

BLOCK_ROWS = 4096
FORMATS = (".npy", ".npz", ".parquet", ".safetensors")
# Columns of a Parquet file that are never numbers of an embedding; pandas writes the last one.
NOT_NUMBERS = (COLUMN, "index", "label", "__index_level_0__")


@dataclass(frozen=True)
class EmbeddingFile:
    """Embeddings in a file, of known shape, not yet read.

    blocks: yields arrays [rows, dim] of any real type, in the order of the file.
    ids: of the points, where the file holds a column or array `id`.
    mapped: the array [points, dim] of a .npy file, of which any rows can be read.
    """

    path: Path
    points: int
    dim: int
    blocks: Callable[[], Iterator[np.ndarray]]
    ids: Ids | None = None
    mapped: np.ndarray | None = None

    def load(
        self,
        progress: Callable[[int], None] = lambda done: None,
        out: Tensor | None = None,
    ) -> Tensor:
        """Read and L2-normalise every row.

        Args:
            progress: called with the number of rows read so far.
            out: [points, dim] float32 to read into, such as a mapped file.

        Returns:
            [points, dim] float32; a zero row is left as it is.

        Raises:
            FeatureError: NaN or infinity; names the number of rows and the first.
            DataError: the file is truncated or cannot be read.
        """
        unit = torch.empty(self.points, self.dim) if out is None else out
        bad, first_bad, done = 0, -1, 0
        with readable(self.path):
            for block in self.blocks():
                rows = np.array(block, dtype=np.float64)  # a copy: a mapped file is read-only
                finite = np.isfinite(rows).all(axis=1)
                if not finite.all():
                    first_bad = first_bad if bad else done + int(np.argmin(finite))
                    bad += int((~finite).sum())
                else:
                    unit[done : done + len(rows)] = unit_rows(torch.from_numpy(rows))
                done += len(rows)
                progress(done)
        self.refuse(bad, first_bad)
        return unit

    def refuse(self, bad: int, first: int) -> None:
        """Raise FeatureError if there are rows that hold NaN or infinity; the first is named."""
        if bad:
            raise FeatureError(
                f"{self.path}: {bad:,} of {self.points:,} rows hold NaN or infinity (or an empty "
                f"cell); the first is row {first:,} (counted from 0). Fix those rows, or remove "
                "them here and wherever points have a row each, such as a file of labels."
            )


def open_embeddings(
    path: Path, key: str | None = None, least: int = 2, budget: float | None = None
) -> EmbeddingFile:
    """The shape of a file of embeddings, and how to read it.

    Args:
        key: name of the array (.npz), tensor (.safetensors) or column of lists (.parquet); needed
            where the file holds several.
        least: points there must be.
        budget: bytes that an array of an .npz may take; by default what is free.

    Raises:
        DataError: no such file, unknown type, empty, truncated, or ambiguous.
        FeatureError: the array is not [n, d].
        MissingDependency: Parquet without pyarrow.
    """
    check_file(path, FORMATS, "embeddings")
    if key is not None and path.suffix == ".npy":
        raise DataError(f"{path}: --key {key}: a .npy file holds one array, without a name.")
    with readable(path):
        if path.suffix == ".parquet":
            return _open_parquet(path, key, least)
        if path.suffix == ".safetensors":
            return _open_safetensors(path, key, least)
        array = load_array(path, ndim=2, key=key, budget=budget)
        found = _from_array(path, array.shape, array.dtype, least, lambda a, b: array[a:b])
    if path.suffix == ".npy":
        found = replace(found, mapped=array)
        if beside(path).is_file():
            names = read_ids(beside(path), found.points, strip=False)  # of files, as they are
            return replace(found, ids=names)
    with readable(path):
        ids = read_member(path, COLUMN)
        return replace(found, ids=None if ids is None else to_ids(ids, found.points, path))


def _from_array(
    path: Path,
    shape: tuple[int, ...],
    dtype: Any,
    least: int,
    rows: Callable[[int, int], np.ndarray],
) -> EmbeddingFile:
    if len(shape) != 2:
        raise FeatureError(
            f"{path}: embeddings must be [points, numbers]; this array is {list(shape)}."
        )
    if np.dtype(dtype).kind not in "iuf":
        raise FeatureError(f"{path}: embeddings must be real numbers; this array holds {dtype}.")
    n, dim = _large_enough(path, *shape, least)

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, n, BLOCK_ROWS):
            yield rows(start, min(start + BLOCK_ROWS, n))

    return EmbeddingFile(path, n, dim, blocks)


class _Slice:
    """A tensor of a safetensors file, whose rows are read when they are needed."""

    def __init__(self, path: Path, key: str, shape: list[int]) -> None:
        self.path, self.key, self.shape = path, key, tuple(shape)

    def rows(self, start: int, stop: int) -> np.ndarray:
        from safetensors import safe_open

        with safe_open(self.path, framework="pt") as file:
            # by way of torch: numpy has no bfloat16
            return file.get_slice(self.key)[start:stop].double().numpy()


def _open_safetensors(path: Path, key: str | None, least: int) -> EmbeddingFile:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        held = {k: _Slice(path, k, file.get_slice(k).get_shape()) for k in file.keys()}  # noqa: SIM118
    chosen = choose(path, held, ndim=2, key=key)
    return _from_array(path, chosen.shape, np.float64, least, chosen.rows)


def _open_parquet(path: Path, key: str | None, least: int) -> EmbeddingFile:
    pa, pq = pyarrow()
    file = pq.ParquetFile(path)
    rows, schema = file.metadata.num_rows, file.schema_arrow
    ids = to_ids(read_parquet(path, COLUMN), rows, path) if COLUMN in schema.names else None
    lists = [f.name for f in schema if _is_list(pa, f.type)]
    if key is not None and key not in lists:
        raise DataError(f"{path}: no column '{key}' of lists; found {', '.join(lists) or 'none'}.")
    if key is not None or len(lists) == 1:
        column = key or lists[0]
        _check_block(path, file.metadata, column)
        first = next(file.iter_batches(batch_size=1, columns=[column]), None)
        width = len(first.column(0)[0] or ()) if first is not None else 0
        shape = _large_enough(path, rows, width, least)
        return EmbeddingFile(path, *shape, lambda: _list_blocks(path, column, width), ids)
    if lists:
        raise DataError(
            f"{path}: holds several columns of lists, {', '.join(lists)}; name one with --key."
        )
    types = pa.types
    columns = [f for f in schema if f.name not in NOT_NUMBERS]
    if other := [
        f.name for f in columns if not (types.is_floating(f.type) or types.is_integer(f.type))
    ]:
        raise FeatureError(
            f"{path}: needs one column of lists, or only columns of numbers besides "
            f"{', '.join(NOT_NUMBERS[:3])}; found also {', '.join(other[:5])}."
        )
    shape = _large_enough(path, rows, len(columns), least)
    names = [f.name for f in columns]
    return EmbeddingFile(path, *shape, lambda: _column_blocks(path, names), ids)


def _check_block(path: Path, metadata: Any, column: str) -> None:
    """Refuse lists so long that a block of them would not fit: equal numbers take no room here."""
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        chunks = map(group.column, range(group.num_columns))
        numbers = sum(
            c.num_values
            for c in chunks
            if c.path_in_schema == column or c.path_in_schema.startswith(f"{column}.")
        )
        size = 8 * numbers / max(1, group.num_rows) * min(BLOCK_ROWS, group.num_rows)
        npz.check_size(path, size, advice=AS_NPY)


def _large_enough(path: Path, points: int, dim: int, least: int) -> tuple[int, int]:
    if points < least or dim < 1:
        few = "two points" if least > 1 else "one point"
        raise FeatureError(
            f"{path}: holds {counted(points, 'point')} of {counted(dim, 'number')}; at least {few} "
            "of one number are needed."
        )
    return points, dim


def _is_list(pa: Any, kind: Any) -> bool:
    types = pa.types
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _list_blocks(path: Path, column: str, width: int) -> Iterator[np.ndarray]:
    _, pq = pyarrow()
    done = 0
    for batch in pq.ParquetFile(path).iter_batches(batch_size=BLOCK_ROWS, columns=[column]):
        lengths = batch.column(0).value_lengths().to_numpy(zero_copy_only=False)
        if (wrong := lengths != width).any():  # an empty cell has length NaN
            at = int(np.argmax(wrong))
            held = "is empty" if np.isnan(lengths[at]) else f"holds {lengths[at]:.0f} numbers"
            raise FeatureError(
                f"{path}: row {done + at:,} of column '{column}' {held}; row 0 holds {width}."
            )
        yield batch.column(0).flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
        done += len(lengths)


def _column_blocks(path: Path, columns: list[str]) -> Iterator[np.ndarray]:
    _, pq = pyarrow()
    for batch in pq.ParquetFile(path).iter_batches(batch_size=BLOCK_ROWS, columns=columns):
        yield np.column_stack([c.to_numpy(zero_copy_only=False) for c in batch.columns])
