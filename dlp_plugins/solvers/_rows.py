"""Dense work of a solver by blocks of rows, each on one CPU thread from start to end.

If every operation were split on its own, a row would go to one thread in a sum over columns and to
another in the next product, and travel between their caches (docs/performance.md, "Solve").
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Self, TypeVar

import torch
from torch import Tensor

from dlp_plugins._threads import Share, row_slices, workers
from dlp_plugins.graph import ALL

R = TypeVar("R")
# Entries of a matrix in one block: 2^18 float32 are 1 MiB, so that the blocks of a few matrices
# stay in cache from one operation to the next.
BLOCK_ENTRIES = 2**18


class RowBlocks:
    """The blocks of rows of matrices of the shape of x [n, c], worked on by all CPU threads.

    A small x, and one on a GPU, is a single block.

    >>> x = torch.ones(4, 2)
    >>> with RowBlocks(x) as blocks:
    ...     blocks.sum(lambda rows: x[rows].sum(dim=0)).tolist()
    [4.0, 4.0]
    """

    def __init__(self, x: Tensor) -> None:
        self.columns = x.shape[1]  # may be lowered while the blocks are in use
        self._rows = len(x)
        self._split = x.device.type == "cpu" and x.numel() > 2 * BLOCK_ENTRIES
        self._threads = ExitStack()
        self._share: Share = map

    def __enter__(self) -> Self:
        if self._split:
            self._share = self._threads.enter_context(workers())
        return self

    def __exit__(self, *error: object) -> None:
        self._threads.close()

    def map(self, f: Callable[[slice], R]) -> list[R]:
        """f of each block of rows, in order."""
        if not self._split:
            return [f(ALL)]
        return list(self._share(f, row_slices(self._rows, self.columns, BLOCK_ENTRIES)))

    def sum(self, f: Callable[[slice], Tensor]) -> Tensor:
        """The sum over the blocks of f [c] of each: a sum over all rows."""
        return torch.stack(self.map(f)).sum(dim=0)
