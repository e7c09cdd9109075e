"""The phases of a propagation: reported and timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str, float, float | None], None]
"""phase, how much is done, of how much (None where that is not known)."""


def silent(phase: str, done: float, total: float | None) -> None:
    """No progress is reported."""


class Clock:
    """Reports and times phases."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        self.progress(name, 0, total)
        begin = time.perf_counter()
        yield lambda done: self.progress(name, done, total)
        self.seconds[name] = time.perf_counter() - begin
        self.progress(name, total or 1, total or 1)
