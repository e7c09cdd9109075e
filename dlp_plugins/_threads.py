"""CPU threads that each take whole blocks of work, in place of splitting every call among them.

A BLAS or OpenMP call that is split among threads waits at its end for the slowest of them; with
thousands of short calls and other load on the machine, that wait is most of the time. Here each
block runs on one thread from start to end. NumPy releases the interpreter lock in products,
comparisons and sorts, so Python threads are enough.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, Protocol, TypeVar

import torch
from threadpoolctl import ThreadpoolController

T = TypeVar("T")
R = TypeVar("R")


class Share(Protocol):
    """As `map`: the function of each block, in order."""

    def __call__(self, function: Callable[[T], R], blocks: Iterable[T], /) -> Iterator[R]: ...


@contextmanager
def workers() -> Iterator[Share]:
    """As many threads as torch uses (OMP_NUM_THREADS), which take the blocks in turn."""
    with (
        _one_blas_thread,
        ThreadPoolExecutor(torch.get_num_threads(), initializer=_one_thread) as pool,
    ):

        def share(function: Callable[[T], R], blocks: Iterable[T], /) -> Iterator[R]:
            # Inference mode is per thread: without the caller's, writing to its tensors fails.
            in_mode = torch.inference_mode(torch.is_inference_mode_enabled())
            return pool.map(in_mode(function), blocks)

        yield share


class _OneBlasThread:
    """Context in which a BLAS call takes one thread; several at once, left in any order.

    threadpoolctl's own puts back what it found, which may be another one's limit.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._limit: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._limit = _libraries().limit(limits=1, user_api="blas")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._limit.restore_original_limits()


_one_blas_thread = _OneBlasThread()


def parallel(function: Callable[[T], R], blocks: Iterable[T]) -> Iterator[R]:
    """`function` of each block, in order, on all threads; a single block runs on the caller's."""
    blocks = list(blocks)
    if len(blocks) == 1:
        yield function(blocks[0])
        return
    with workers() as share:
        yield from share(function, blocks)


def _one_thread() -> None:
    torch.get_num_threads()  # torch's first call in a thread sets OpenMP's limit: it must be first
    _libraries().limit(limits=1, user_api="openmp")


@cache
def _libraries() -> ThreadpoolController:
    """NumPy's and torch's libraries, both loaded by now; finding them takes milliseconds."""
    return ThreadpoolController()


def length(rows: slice) -> int:
    """How many rows a slice with both ends takes."""
    return rows.stop - rows.start


def slices(n: int, size: int) -> Iterator[slice]:
    """0..n in slices of `size` rows; the last may be shorter."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def row_slices(n: int, columns: int, entries: int, most: int | None = None) -> Iterator[slice]:
    """0..n in slices of at most `entries` entries, for rows of so many columns.

    A slice has at least one row, and at most `most` rows where that is given.
    """
    rows = max(1, entries // max(1, columns))
    return slices(n, rows if most is None else min(rows, most))
