"""What several processes must decide alike between two steps: whether to stop, whether to save."""

from __future__ import annotations

import time

from dlp_plugins.processes.group import Processes

# Time between two exchanges: each makes all processes wait for the slowest.
TALK_SECONDS = 0.25
MOST_STEPS = 10_000


class Agreement:
    """Asked after every step by all processes, which get the same answer.

    They exchange what they know once in `TALK_SECONDS` of steps, so an answer may come that late.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._steps = self._left = 1
        self._talked = time.monotonic()

    def ask(self, stop: bool, save: bool) -> tuple[bool, bool]:
        """Whether any process was asked to stop, and whether the first one wants to save."""
        if self._processes.alone:
            return stop, save
        self._left -= 1
        if self._left > 0:
            return False, False
        now = time.monotonic()
        steps = int(self._steps * TALK_SECONDS / max(now - self._talked, 1e-6))
        steps = min(max(steps, 1), MOST_STEPS, 2 * self._steps)
        first = self._processes.first
        asked, wants, agreed = self._processes.totals([stop, first and save, first * steps])
        self._steps = self._left = int(agreed)
        self._talked = time.monotonic()
        return asked > 0, wants > 0
