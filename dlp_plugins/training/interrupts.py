"""Ctrl-C and SIGTERM, taken at a moment when the state is whole.

An interrupt in the middle of a step would leave weights that have moved and a counter that has
not. So the first signal only asks; the trainer stops between two steps. A second one stops at once,
and what was saved last remains.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Context in which signals are kept until `check` is called."""

    def __init__(self) -> None:
        self.asked = False
        self._former: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._former = {s: signal.signal(s, self._ask) for s in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for which, handler in self._former.items():
            signal.signal(which, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal has come."""
        if self.asked:
            raise KeyboardInterrupt
