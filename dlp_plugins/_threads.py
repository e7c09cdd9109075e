"""Work shared among CPU threads, each running one block at a time.

A BLAS or OpenMP call that is itself split among threads waits at its end for the slowest of them;
with thousands of short calls and any other load on the machine that wait is most of the time. Here
the blocks are shared out instead, and each call inside a block stays on its own thread. NumPy lets
go of the interpreter lock in products, comparisons and sorts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Protocol, TypeVar

import torch
from threadpoolctl import ThreadpoolController

T = TypeVar("T")
R = TypeVar("R")


class Share(Protocol):
    """As `map`: the function of each block, in order."""

    def __call__(self, function: Callable[[T], R], blocks: Iterable[T], /) -> Iterator[R]: ...


@contextmanager
def workers() -> Iterator[Share]:
    """As many threads as torch uses (OMP_NUM_THREADS), which share blocks out among them."""
    with (
        _libraries().limit(limits=1, user_api="blas"),
        ThreadPoolExecutor(torch.get_num_threads(), initializer=_one_thread) as pool,
    ):
        yield pool.map


def parallel(function: Callable[[T], R], blocks: Iterable[T]) -> Iterator[R]:
    """`function` of each block, in order, on all threads; a single block as the caller would."""
    blocks = list(blocks)
    if len(blocks) == 1:
        yield function(blocks[0])
        return
    with workers() as share:
        yield from share(function, blocks)


def _one_thread() -> None:
    torch.get_num_threads()  # sets this thread's OpenMP to torch's setting: not to come after ours
    _libraries().limit(limits=1, user_api="openmp")


@cache
def _libraries() -> ThreadpoolController:
    """NumPy's and torch's, both loaded by now; looking for them takes milliseconds."""
    return ThreadpoolController()


def chunks(n: int, size: int) -> Iterator[slice]:
    """0..n in slices of `size`."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def row_chunks(n: int, columns: int, entries: int) -> Iterator[slice]:
    """0..n in slices of rows that hold at most so many entries, but a row at least."""
    return chunks(n, max(1, entries // max(1, columns)))
