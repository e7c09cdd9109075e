"""Embeddings from files of several types, L2-normalised, read a block of rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlp_plugins.embeddings._files import check_file, load_array, only_one, pyarrow, readable
from dlp_plugins.errors import FeatureError
from dlp_plugins.inputs import unit_rows

BLOCK_ROWS = 16_384
FORMATS = (".npy", ".npz", ".parquet", ".safetensors")


@dataclass(frozen=True)
class Features:
    """Embeddings in a file, of known shape, not yet read.

    blocks: yields arrays [rows, dim] of any real type, in the order of the file.
    """

    path: Path
    points: int
    dim: int
    blocks: Callable[[], Iterator[np.ndarray]]

    def load(self, progress: Callable[[int], None] = lambda done: None) -> Tensor:
        """Read and L2-normalise every row.

        Args:
            progress: told how many rows have been read.

        Returns:
            [points, dim] float32; a zero row is left as it is.

        Raises:
            FeatureError: NaN or infinity; says how many rows and which is the first.
            DataError: the file is truncated or cannot be read.
        """
        unit = torch.empty(self.points, self.dim)
        bad, first_bad, done = 0, -1, 0
        with readable(self.path):
            for block in self.blocks():
                rows = np.asarray(block, dtype=np.float64)
                finite = np.isfinite(rows).all(axis=1)
                if not finite.all():
                    first_bad = first_bad if bad else done + int(np.argmin(finite))
                    bad += int((~finite).sum())
                else:
                    unit[done : done + len(rows)] = unit_rows(torch.from_numpy(rows))
                done += len(rows)
                progress(done)
        if bad:
            raise FeatureError(
                f"{self.path}: {bad:,} of {self.points:,} rows hold NaN or infinity (or an empty "
                f"cell); the first is row {first_bad:,} (counted from 0). Remove or mend those "
                "rows, in the labels too."
            )
        return unit


def open_features(path: Path) -> Features:
    """The shape of a file of embeddings, and how to read it.

    Raises:
        DataError: no such file, unknown type, empty, truncated, or ambiguous.
        FeatureError: the array is not [n, d].
        MissingDependency: Parquet without pyarrow.
    """
    check_file(path, FORMATS, "features")
    with readable(path):
        if path.suffix == ".parquet":
            return _open_parquet(path)
        if path.suffix == ".safetensors":
            return _open_safetensors(path)
        array = load_array(path, ndim=2)
    return _features(path, array.shape, array.dtype, lambda a, b: array[a:b])


def _features(
    path: Path, shape: tuple[int, ...], dtype: Any, rows: Callable[[int, int], np.ndarray]
) -> Features:
    if len(shape) != 2:
        raise FeatureError(
            f"{path}: features must be [points, numbers]; this array is {list(shape)}."
        )
    if np.dtype(dtype).kind not in "iuf":
        raise FeatureError(f"{path}: features must be real numbers; this array holds {dtype}.")
    n, dim = _large_enough(path, *shape)

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, n, BLOCK_ROWS):
            yield rows(start, min(start + BLOCK_ROWS, n))

    return Features(path, n, dim, blocks)


class _Slice:
    """A tensor of a safetensors file; its rows are read when they are asked for."""

    def __init__(self, path: Path, key: str, shape: list[int]) -> None:
        self.path, self.key, self.shape = path, key, tuple(shape)

    def rows(self, start: int, stop: int) -> np.ndarray:
        from safetensors import safe_open

        with safe_open(self.path, framework="pt") as file:
            # by way of torch: numpy has no bfloat16
            return file.get_slice(self.key)[start:stop].double().numpy()


def _open_safetensors(path: Path) -> Features:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        held = {k: _Slice(path, k, file.get_slice(k).get_shape()) for k in file.keys()}  # noqa: SIM118
    chosen: _Slice = only_one(path, held, ndim=2)
    return _features(path, chosen.shape, np.float64, chosen.rows)


def _open_parquet(path: Path) -> Features:
    pa, pq = pyarrow()
    file = pq.ParquetFile(path)
    lists = [f.name for f in file.schema_arrow if _is_list(pa, f.type)]
    if len(lists) == 1:
        first = next(file.iter_batches(batch_size=1, columns=lists), None)
        width = len(first.column(0)[0] or ()) if first is not None else 0
        shape = _large_enough(path, file.metadata.num_rows, width)
        return Features(path, *shape, lambda: _list_blocks(path, lists[0], width))
    types = pa.types
    other = [
        f.name
        for f in file.schema_arrow
        if not (types.is_floating(f.type) or types.is_integer(f.type))
    ]
    if other:
        raise FeatureError(
            f"{path}: wanted either one column of lists or nothing but columns of numbers; found "
            f"besides: {', '.join(other[:5])}. Keep the feature columns alone."
        )
    shape = _large_enough(path, file.metadata.num_rows, len(file.schema_arrow))
    return Features(path, *shape, lambda: _column_blocks(path))


def _large_enough(path: Path, points: int, dim: int) -> tuple[int, int]:
    if points < 2 or dim < 1:
        raise FeatureError(
            f"{path}: features must be two points of one number at least; these are {points} of "
            f"{dim}."
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


def _column_blocks(path: Path) -> Iterator[np.ndarray]:
    _, pq = pyarrow()
    for batch in pq.ParquetFile(path).iter_batches(batch_size=BLOCK_ROWS):
        yield np.column_stack([c.to_numpy(zero_copy_only=False) for c in batch.columns])
