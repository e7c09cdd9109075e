"""Dense work of a solver by blocks of rows, each from start to end on one thread of the CPU.

Split inside each operation, rows would go to one thread in a sum over columns and to another in the
next product, and travel between the threads' caches (docs/performance.md, "Solve").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from dlp_plugins._threads import row_chunks, workers
from dlp_plugins.graph import ALL

R = TypeVar("R")
# Numbers in a block: 2^18 float32 are 1 MiB, so that a few vectors' blocks stay in cache from one
# operation to the next.
BLOCK_ENTRIES = 2**18


class EachBlock(Protocol):
    """f of each block of rows of x [n, c], in order."""

    def __call__(self, f: Callable[[slice], R], x: Tensor, /) -> list[R]: ...


@contextmanager
def by_rows(x: Tensor) -> Iterator[EachBlock]:
    """Threads for work on vectors as large as x [n, c]; small ones and a GPU's are one block."""
    if x.device.type != "cpu" or x.numel() <= 2 * BLOCK_ENTRIES:
        yield lambda f, x: [f(ALL)]
    else:
        # each thread has a mode of its own, and only in the caller's may it write on its tensors
        in_mode = torch.inference_mode(torch.is_inference_mode_enabled())
        with workers() as share:
            yield lambda f, x: list(
                share(in_mode(f), row_chunks(len(x), x.shape[1], BLOCK_ENTRIES))
            )
