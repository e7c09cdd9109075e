"""Ends all processes of a run when one of them dies, hangs or raises.

A collective operation waits for everyone, so a process that is gone would leave the others waiting.
Each process therefore counts up a number in the store that torch.distributed keeps, once a second;
the first process watches all numbers, the others watch the first one's. One whose number stands
still is gone: killed, stopped, or on a machine that fell silent. The store is the first process's,
so to the others its silence means the same. Seconds are counted by looks, so that processes which
were all stopped for a while and go on do not take each other for gone.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

from dlp_plugins.errors import DlpError, ElsewhereError, LostProcessError
from dlp_plugins.processes.launch import launched

BEAT_SECONDS = 1.0
SILENT_LOOKS = 20  # without a beat: a loaded machine may hold a process up for some seconds
GRACE_SECONDS = 4.0  # for the main thread to end by itself, which tidies up
RESUME = (
    "What was saved last is intact: continue with --resume, with as many processes as you like."
)
_numbers = itertools.count()  # a run in the same processes has keys of its own


class Watch:
    """The watch over the processes of one run, for the length of `ending_together`.

    advice: what to do when one has died.
    """

    def __init__(self, rank: int, size: int, advice: str = RESUME) -> None:
        self.rank, self.size, self.advice = rank, size, advice
        store = dist.distributed_c10d._get_default_store()
        if hasattr(store, "clone"):  # a connection of its own, which waits for no other call
            store = store.clone()
        self._store = dist.PrefixStore(f"dlp/{next(_numbers)}", store)
        self._over, self._told = threading.Event(), threading.Event()
        self._looks = 0
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._watch, self._listen)
        ]

    @contextmanager
    def ending_together(self) -> Iterator[None]:
        """Context: an error of one process becomes one of all.

        Raises:
            LostProcessError: another has died or hangs. ElsewhereError: another has raised.
        """
        for thread in self._threads:
            thread.start()
        try:
            with _termination_raised():
                yield
        except BaseException as error:
            instead = self._instead_of(error)
            final = instead or error
            if isinstance(final, DlpError) and not isinstance(final, ElsewhereError):
                final.of_one_process = True
            if instead is not None:
                raise instead from error
            raise
        finally:
            self._over.set()

    def _instead_of(self, error: BaseException) -> DlpError | None:
        """What to raise in the place of an error; None for the error itself, which is the first."""
        if isinstance(error, KeyboardInterrupt | ElsewhereError):
            self._claim()
            return None
        if any(map(_of_a_connection, (error, error.__context__))):
            # somebody else is the cause, and may be about to say why
            end = time.monotonic() + GRACE_SECONDS / 2
            while time.monotonic() < end:
                if self._failed():
                    return ElsewhereError("Another process has reported why.")
                time.sleep(0.1)
            return self._lost(None) if self._claim() else ElsewhereError("Reported elsewhere.")
        if not self._claim():
            return ElsewhereError("Another process has reported why.")
        if self.rank == 0:  # the store may go with this process: the others look once a second
            time.sleep(2 * BEAT_SECONDS)
        return None

    def _lost(self, rank: int | None) -> LostProcessError:
        which = "Another process" if rank is None else f"Process {rank}"
        return LostProcessError(
            f"{which} of the {self.size} has died or hangs, so all of them end. {self.advice}"
        )

    # -- what the store holds --------------------------------------------------------------------

    def _claim(self) -> bool:
        """Whether this process is the first that fails, and so the one that reports."""
        if self._told.is_set():
            return False
        try:
            return self._store.add("failed", 1) == 1
        except (dist.DistError, RuntimeError):  # the store died with the first process
            return self.rank in (0, 1)

    def _failed(self) -> bool:
        if self._told.is_set():
            return True
        try:
            return self._store.add("failed", 0) > 0
        except (dist.DistError, RuntimeError):
            return False

    # -- the threads -----------------------------------------------------------------------------

    def _watch(self) -> None:
        watched = range(1, self.size) if self.rank == 0 else [0]
        seen = dict.fromkeys(watched, (0, 0))
        while not self._over.wait(BEAT_SECONDS):
            try:
                self._look(seen)
            except (dist.DistError, RuntimeError):  # the store has gone, with the first process
                if self._over.wait(GRACE_SECONDS / 2):
                    return  # it has gone because all is done
                self._end(self._lost(0) if self._claim() else None)
            self._looks += 1

    def _look(self, seen: dict[int, tuple[int, int]]) -> None:
        """seen: of each watched process its number, and how many looks it has stood still."""
        self._store.add(f"beat {self.rank}", 1)
        if self._store.add("failed", 0):
            self._told.set()
            self._end(None)
            return  # this process ends by itself, and the store with it
        for rank, (beats, still) in seen.items():
            new = self._store.add(f"beat {rank}", 0)
            seen[rank] = new, still + 1 if new == beats else 0
            if seen[rank][1] > SILENT_LOOKS:
                self._end(self._lost(rank) if self._claim() else None)
                return

    def _listen(self) -> None:
        """End this process when the store gives no answer, as over a link that has been cut."""
        looks, still = 0, 0
        while not self._over.wait(BEAT_SECONDS):
            looks, still = self._looks, still + 1 if looks == self._looks else 0
            if still > SILENT_LOOKS:
                self._end(self._lost(0) if launched().local_rank == 0 else None)

    def _end(self, error: DlpError | None) -> None:
        """End this process, whose main thread may be waiting for one that is gone."""
        if error is None and self._over.wait(GRACE_SECONDS):
            return
        if error is not None:
            if sys.stdout.isatty():
                sys.stdout.write("\x1b[?25h")  # a live display hides the cursor
                sys.stdout.flush()
            print(f"error: {error}", file=sys.stderr, flush=True)
        os._exit(1)


class Terminated(SystemExit):
    """SIGTERM: torchrun sends it to all when one has died."""


@contextmanager
def _termination_raised() -> Iterator[None]:
    """SIGTERM raises, so that what it ends can say why; afterwards it is ignored.

    Without that, torchrun would end a process that is about to report the death of another.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated(128 + number)

    former = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except BaseException:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise
    else:
        signal.signal(signal.SIGTERM, former)


def _of_a_connection(error: BaseException | None) -> bool:
    """Whether an error came from talking to another process."""
    if isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and any(
        word in str(error) for word in ("gloo", "Connection", "NCCL", "Broken pipe")
    )
