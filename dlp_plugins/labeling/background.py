"""Work that follows answers in a thread of its own, the newest state at a time."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable

DELAY = 0.1  # seconds from an answer to its work: the answer's own reply goes first
NICENESS = 5  # of the thread, where the system allows that: the next answer's thread goes first


class Background:
    """Calls `work` once after one or more calls of `wake`, never twice at the same time.

    Args:
        rest: pause after a call, in lengths of that call.

    problem: what the last call raised, in a sentence; None if it ended well. The next call is made
        all the same.
    """

    def __init__(self, name: str, work: Callable[[], object], rest: float = 0.0) -> None:
        self.problem: str | None = None
        self._work, self._rest = work, rest
        self._wanted = threading.Event()
        self._end = threading.Event()
        self._idle = threading.Condition()
        self._busy = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def wake(self) -> None:
        with self._idle:
            self._busy = True
            self._wanted.set()

    def wait(self, timeout: float) -> bool:
        """Wait until there is nothing to do; False if that took longer than `timeout` seconds."""
        with self._idle:
            return self._idle.wait_for(lambda: not self._busy, timeout)

    def stop(self) -> None:
        """End the thread, after the call that is running."""
        self._end.set()
        self._wanted.set()
        self._thread.join()

    def _run(self) -> None:
        with contextlib.suppress(AttributeError, OSError):  # of this thread alone, on Linux
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        while True:
            self._wanted.wait()
            self._end.wait(DELAY)
            self._wanted.clear()
            if self._end.is_set():
                return
            begin = time.perf_counter()
            try:
                self._work()
                self.problem = None
            except Exception as error:  # labels are safe on the disk; the page shows the sentence
                logging.getLogger(__name__).exception("%s failed", self._thread.name)
                self.problem = f"{type(error).__name__}: {error}"
            with self._idle:
                if not self._wanted.is_set():
                    self._busy = False
                    self._idle.notify_all()
            self._end.wait(self._rest * (time.perf_counter() - begin))
