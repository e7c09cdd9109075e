"""Points with the same embedding: they are searched and labelled once.

Shapes: n points, m of them distinct.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dlp_plugins._threads import row_slices
from dlp_plugins.inputs import UNLABELED

BLOCK_ENTRIES = 2**18  # numbers of a block of rows: its copies in int64 stay in cache


@dataclass(frozen=True)
class Distinct:
    """Which of n rows are the same.

    points: [m] int64, the first row of each group of equal rows.
    group: [n] int64, each row's group. None where no two rows are equal, in the order of rows.
    """

    points: Tensor
    group: Tensor | None

    @property
    def duplicates(self) -> int:
        """Rows that equal an earlier one."""
        return 0 if self.group is None else len(self.group) - len(self.points)

    def select(self, rows: Tensor) -> Tensor:
        """The distinct rows [m, ...] of rows [n, ...]."""
        return rows if self.group is None else rows[self.points]

    def expand(self, values: Tensor) -> Tensor:
        """A value for each point [n, ...] from one for each group [m, ...]."""
        return values if self.group is None else values[self.group]

    def labels(self, labels: Tensor) -> Tensor:
        """[m]: the label most points of a group are given, the lower of two; -1 where none is."""
        if self.group is None:
            return labels
        known = (labels != UNLABELED).nonzero().squeeze(1)
        if not len(known):
            return torch.full((len(self.points),), UNLABELED)
        pairs, counts = np.unique(
            np.stack([self.group[known].numpy(), labels[known].numpy()]), axis=1, return_counts=True
        )
        group, label = torch.from_numpy(pairs)
        # by group, then count, then label from high to low: the last of each group is its label
        order = np.lexsort([-pairs[1], counts, pairs[0]])
        found = torch.full((len(self.points),), UNLABELED)
        last = np.flatnonzero(np.append(np.diff(pairs[0][order]) != 0, True))
        chosen = torch.from_numpy(order[last])
        found[group[chosen]] = label[chosen]
        return found


def find_distinct(rows: Tensor, merge: bool = True) -> Distinct:
    """Groups of equal unit rows of x [n, d], on the CPU; each zero row is a group of its own.

    Rows of any length go through `unit_rows` first. A zero row has no direction: two of them have
    nothing in common.

    Args:
        merge: False leaves every row a group of its own, as a graph from a file needs it.
    """
    if not merge:
        return Distinct(torch.arange(len(rows)), None)

    def equal(one: Tensor, other: Tensor) -> Tensor:
        return torch.cat(
            [
                same_rows(rows[one[part]], rows[other[part]])
                for part in row_slices(len(one), rows.shape[1], BLOCK_ENTRIES)
            ]
        )

    return distinct_by_keys(row_keys(rows), equal)


def same_rows(one: Tensor, other: Tensor) -> Tensor:
    """[b] bool: whether rows [b, d] are equal, and not zero."""
    return (one == other).all(dim=1) & one.any(dim=1)


def distinct_by_keys(keys: np.ndarray, equal: Callable[[Tensor, Tensor], Tensor]) -> Distinct:
    """As `find_distinct`, from the keys [n] of `row_keys`.

    Args:
        equal: `same_rows` of rows by their numbers [b], b > 0.
    """
    n = len(keys)
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    if len(first) == n:
        return Distinct(torch.arange(n), None)
    earliest = torch.from_numpy(first[group])  # the first row with the same key
    candidates = (earliest != torch.arange(n)).nonzero().squeeze(1)
    same = equal(candidates, earliest[candidates])
    alone = candidates[~same]
    earliest[alone] = alone
    if not same.any():
        return Distinct(torch.arange(n), None)
    points, group = np.unique(earliest.numpy(), return_inverse=True)
    return Distinct(torch.from_numpy(points), torch.from_numpy(group.astype(np.int64)))


def row_keys(rows: Tensor) -> np.ndarray:
    """[n] int64, equal for equal rows and seldom for others: bits times odd factors, summed."""
    random = torch.Generator().manual_seed(0)
    low, high = -(2**62), 2**62
    factors = 2 * torch.randint(low, high, (rows.shape[1],), generator=random) + 1
    keys = torch.empty(len(rows), dtype=torch.int64)
    for block in row_slices(len(rows), rows.shape[1], BLOCK_ENTRIES):
        bits = (rows[block] + 0.0).double().view(torch.int64)  # -0 becomes 0
        keys[block] = (bits * factors).sum(dim=1)
    return keys.numpy()
