"""Threads in the place of processes, so that one process can test what several do together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from dlp_plugins.processes.group import Processes
from dlp_plugins.processes.launch import Launch

T = TypeVar("T")
PATIENCE = 60.0


class ThreadProcesses(Processes):
    """One of several threads; what they exchange passes through a list that all have."""

    def __init__(self, rank: int, held: list[object], barrier: threading.Barrier) -> None:
        super().__init__(Launch(rank, len(held), rank, len(held)))
        self._held, self._barrier = held, barrier

    @contextmanager
    def together(self, advice: str = "") -> Iterator[None]:
        yield

    def each(self, value: T) -> list[T]:
        self._held[self.rank] = value
        self._barrier.wait(PATIENCE)
        found = list(self._held)
        self._barrier.wait(PATIENCE)
        return found

    def from_first(self, value: T) -> T:
        return self.each(value)[0]

    def summed(self, numbers: Tensor) -> Tensor:
        return torch.stack(self.each(numbers.double())).sum(dim=0)

    def exchange(self, rows: Tensor, sending: Sequence[int], receiving: Sequence[int]) -> Tensor:
        assert len(rows) == sum(sending)
        parts = [sent[self.rank] for sent in self.each(rows.split(list(sending)))]
        assert [len(part) for part in parts] == list(receiving)
        return torch.cat(parts)

    def gather_rows(self, own: Tensor | None, counts: Sequence[int]) -> Tensor:
        assert (0 if own is None else len(own)) == counts[self.rank]
        return torch.cat([part for part in self.each(own) if part is not None])


def in_threads(count: int, work: Callable[[Processes], T]) -> list[T]:
    """What each of so many processes gives; the first error of one is raised."""
    barrier, held = threading.Barrier(count), [None] * count

    def run(rank: int) -> T:
        try:
            return work(ThreadProcesses(rank, held, barrier))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(run, rank) for rank in range(count)]
    errors = [future.exception() for future in futures if future.exception()]
    for error in errors:
        if not isinstance(error, threading.BrokenBarrierError):
            raise error
    return [future.result() for future in futures]
