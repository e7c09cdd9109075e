"""Wall seconds and CPU seconds; other load on the machine disturbs CPU seconds far less."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple


class Timing(NamedTuple):
    """A result and the wall and CPU seconds that it took."""

    result: Any
    wall: float
    cpu: float

    def better(self, other: Timing) -> Timing:
        """The result with the smaller times of two runs of the same function."""
        return Timing(self.result, min(self.wall, other.wall), min(self.cpu, other.cpu))


def timed(function: Callable[[], Any], repeat: int = 1) -> Timing:
    """Run a function; of several runs the first result and the smallest times."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = function()
    first = Timing(result, time.perf_counter() - wall, time.process_time() - cpu)
    return first if repeat == 1 else first.better(timed(function, repeat - 1))


def in_turns(candidates: dict[str, Callable[[], Any]], turns: int) -> dict[str, Timing]:
    """Median times of each candidate, run in turns: a slow minute then spoils no ratio."""
    runs = [{name: timed(work) for name, work in candidates.items()} for _ in range(turns)]
    return {
        name: Timing(
            runs[0][name].result,
            median(run[name].wall for run in runs),
            median(run[name].cpu for run in runs),
        )
        for name in candidates
    }
