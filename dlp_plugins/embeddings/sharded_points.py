"""Points of a mapped file, of which each process reads the rows that it needs when it needs them.

Shapes: n points in the file, m of them distinct, d numbers each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from dlp_plugins._threads import length, row_slices
from dlp_plugins.embeddings.features import EmbeddingFile
from dlp_plugins.graphs._top_k import Array
from dlp_plugins.inputs import BLOCK_ENTRIES, unit_rows
from dlp_plugins.processes.group import Processes
from dlp_plugins.propagation import Propagator
from dlp_plugins.propagation.duplicates import Distinct, distinct_by_keys, row_keys, same_rows
from dlp_plugins.transforms.contract import total_statistics


@dataclass(frozen=True)
class FileRows:
    """Unit rows [m, d] of a mapped file, transformed; only those that are asked for are in memory.

    file: [n, d] of any real type.
    numbers: [m] int64, which of its rows, in the order in which they count here.
    change: a transform of rows [b, d] float32, if any.
    """

    file: np.ndarray
    numbers: np.ndarray
    change: Callable[[Tensor], Tensor] | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, chosen: slice | Array) -> Array:
        """[b, d] float32."""
        numbers, dim = self.numbers[chosen], self.file.shape[1]
        found = np.empty((len(numbers), dim), np.float32)
        for part in row_slices(len(numbers), dim, BLOCK_ENTRIES):
            rows = np.array(self.file[numbers[part]], np.float64)
            unit = unit_rows(torch.from_numpy(rows))
            found[part] = unit if self.change is None else self.change(unit)
        return found

    def as_array(self) -> Array:
        """The same, for a search that takes some rows at a time and nothing else."""
        return cast(Array, self)


def read_distinct(
    source: EmbeddingFile, processes: Processes, tick: Callable[[int], None]
) -> tuple[Distinct, int]:
    """Which points are the same, and how many are zero; each process reads its share of them.

    Each holds 8 bytes for every point while keys are compared, and afterwards the result.

    Raises:
        FeatureError: NaN or infinity, in any process's share.
    """
    file, share = _mapped(source), processes.share(source.points)
    keys = np.empty(length(share), np.int64)
    zero = bad = done = 0
    first_bad = source.points
    for part in row_slices(len(keys), source.dim, BLOCK_ENTRIES):
        rows = np.array(file[share.start + part.start : share.start + part.stop], np.float64)
        done += length(part)
        tick(min(done * processes.size, source.points))
        finite = np.isfinite(rows).all(axis=1)
        if not finite.all():
            first_bad = min(first_bad, share.start + part.start + int(np.argmin(finite)))
            bad += int((~finite).sum())
            continue
        unit = unit_rows(torch.from_numpy(rows))
        zero += len(unit) - int(unit.any(dim=1).sum())
        keys[part] = row_keys(unit)
    bad, zero = map(int, processes.totals([bad, zero]))
    source.refuse(bad, min(processes.each(first_bad)))
    every = processes.gather_shares(torch.from_numpy(keys), source.points).numpy()
    del keys

    def equal(one: Tensor, other: Tensor) -> Tensor:
        mine = processes.share(len(one))
        found = torch.zeros(length(mine), dtype=torch.bool)
        for part in row_slices(len(found), source.dim, BLOCK_ENTRIES):
            rows = (FileRows(file, x[mine][part].numpy())[:] for x in (one, other))
            found[part] = same_rows(*map(torch.from_numpy, rows))
        return processes.gather_shares(found, len(one))

    return distinct_by_keys(every, equal), zero


def transformed(
    propagator: Propagator, source: EmbeddingFile, points: Tensor
) -> tuple[Callable[[Tensor], Tensor], str | None]:
    """What the transform does to a block of unit rows, and its note; each reads its share once.

    Args:
        points: [m] int64, the distinct points.
    """
    transform, processes = propagator.transform, propagator.processes
    own = points[processes.share(len(points))].numpy()
    rows = FileRows(_mapped(source), own)
    blocks = (
        torch.from_numpy(rows[part]) for part in row_slices(len(own), source.dim, BLOCK_ENTRIES)
    )
    total = total_statistics(transform, blocks)
    total = None if total is None else processes.summed(total)
    return lambda unit: propagator.transform_rows(unit, total), transform.note(total, source.dim)


def _mapped(source: EmbeddingFile) -> np.ndarray:
    assert source.mapped is not None
    return source.mapped
