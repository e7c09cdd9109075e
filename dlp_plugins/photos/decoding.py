"""Decoding in threads, ahead of the network that takes the batches."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from dlp_plugins.datasets.contract import list_unreadable
from dlp_plugins.errors import DataError
from dlp_plugins.photos.source import Photos, Read

AHEAD = 3  # batches in work besides the one that is used
Bad = Literal["stop", "skip"]
MOST_THREADS = 8  # decoding an image releases Python's lock


class Batch(NamedTuple):
    """Images first to last - 1, less those that cannot be read.

    images: [b, 3, height, width] uint8. positions: of these b. problems: sentences on the others.
    """

    last: int
    images: Tensor
    positions: list[int]
    problems: list[str]


def batches(read: Read, first: int, total: int, size: int) -> Iterator[Batch]:
    """The images from position `first` on, `size` at a time, in order."""
    with ThreadPoolExecutor(_threads()) as pool:
        waiting: deque[tuple[int, int, list[Future[Tensor]]]] = deque()
        starts = iter(range(first, total, size))
        try:
            while True:
                while len(waiting) <= AHEAD and (start := next(starts, None)) is not None:
                    stop = min(start + size, total)
                    waiting.append(
                        (start, stop, [pool.submit(read, i) for i in range(start, stop)])
                    )
                if not waiting:
                    return
                yield _gather(*waiting.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _gather(start: int, stop: int, futures: list[Future[Tensor]]) -> Batch:
    images, positions, problems = [], [], []
    for i, future in zip(range(start, stop), futures, strict=True):
        try:
            images.append(future.result())
            positions.append(i)
        except DataError as error:
            problems.append(str(error))
    stacked = torch.stack(images) if images else torch.empty(0, dtype=torch.uint8)
    return Batch(stop, stacked, positions, problems)


def read_all(
    photos: Photos,
    size: tuple[int, int],
    interpolation: str,
    batch: int,
    bad: Bad,
    problems: list[str],
) -> Iterator[Batch]:
    """All photos in batches; sentences on those that are left out are added to `problems`.

    Raises:
        DataError: some cannot be read and `bad` is 'stop', or none can; all are named.
    """
    good = 0
    for found in batches(photos.reader(size, interpolation), 0, len(photos), batch):
        problems += found.problems
        good += len(found.positions)
        if problems and bad == "stop":
            raise stopped(photos, problems, found.last)
        yield found
    if not good:
        raise DataError(list_unreadable(problems, len(photos)))


def stopped(photos: Photos, problems: list[str], last: int, more: str = "") -> DataError:
    """The error that names every image that cannot be read; those from `last` on are tried."""
    known = [*problems, *find_unreadable(photos, last)]
    listed = list_unreadable(known, len(photos))
    return DataError(f"{listed}\nTo leave them out, add --bad skip.{more}")


def find_unreadable(photos: Photos, first: int) -> list[str]:
    """Sentences on all images from position `first` on that cannot be read; decodes them all."""
    read = photos.reader((32, 32), "bilinear")

    def problem(i: int) -> str | None:
        try:
            read(i)
        except DataError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(_threads()) as pool:
        return [p for p in pool.map(problem, range(first, len(photos))) if p]


def _threads() -> int:
    return min(MOST_THREADS, max(2, os.cpu_count() or 1))
