"""Seconds by the clock and of the processor: other load disturbs the second far less."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple


class Timing(NamedTuple):
    """A result, the seconds by the clock and of the processor that it took."""

    result: Any
    clock: float
    processor: float

    def better(self, again: Timing) -> Timing:
        """The lesser time of two runs of the same."""
        clock, processor = min(self.clock, again.clock), min(self.processor, again.processor)
        return Timing(self.result, clock, processor)


def timed(function: Callable[[], Any]) -> Timing:
    clock, processor = time.perf_counter(), time.process_time()
    result = function()
    return Timing(result, time.perf_counter() - clock, time.process_time() - processor)
