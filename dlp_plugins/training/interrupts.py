"""Ctrl-C, SIGTERM and a closed terminal, taken at a moment when the state is whole.

An interrupt in the middle of a step would leave weights that have moved and a counter that has
not. So the first signal only asks to stop; the trainer stops between two steps. A second one stops
at once, and what was saved last remains.
"""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SAME_SECONDS = 5.0


class Interrupts:
    """Context in which a first signal only sets `asked`.

    several: this is one of several processes. Their launcher passes on a Ctrl-C that the terminal
        has sent to all of them already, so a signal that soon follows the first is the same.

    One that the process was started to ignore (`nohup`) stays ignored.
    """

    def __init__(self, several: bool = False) -> None:
        self.asked = False
        self._several, self._asked_at = several, 0.0
        self._former: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            heeded = [s for s in SIGNALS if signal.getsignal(s) is not signal.SIG_IGN]
            self._former = {s: signal.signal(s, self._ask) for s in heeded}
        return self

    def __exit__(self, *_: object) -> None:
        for which, handler in self._former.items():
            signal.signal(which, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.asked and not (self._several and now - self._asked_at < SAME_SECONDS):
            raise KeyboardInterrupt
        if not self.asked:
            self.asked, self._asked_at = True, now
