"""`dlp` in processes of their own that start at once: forked from a server that has torch loaded.

A child is where a test can send signals, fill the disk, or give up its rights.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import sys
from collections.abc import Sequence
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import NamedTuple

LOADED = [
    "dlp_cli.__main__", "dlp_plugins.training.run", "dlp_plugins.embeddings.run",
    "dlp_plugins.photos.embed", "dlp_plugins.bench.runner", "dlp_cli.display.live",
    "dlp_cli.display.results", "dlp_plugins.photos.predict", "pyarrow.parquet", "warm",
]  # fmt: skip
NOBODY = 65534
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(LOADED)


@functools.cache
def _start_server() -> None:
    """It reads its path from the environment, and passes over what it does not find."""
    before = dict(os.environ)
    os.environ |= {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)


class Done(NamedTuple):
    """code: the exit status, or minus the number of the signal."""

    code: int
    out: str


class Child:
    """`dlp WORDS` in a process of its own, in the folder `at`.

    Args:
        log: file of its standard output and errors.
        user: to become before anything else.
    """

    def __init__(self, words: Sequence[str | Path], log: Path, at: Path, user: int = 0) -> None:
        _start_server()
        self.log = log
        log.touch()
        log.chmod(0o666)
        arguments = (list(map(str, words)), str(log), str(at), user)
        self.process: ForkServerProcess = _context.Process(target=_main, args=arguments)
        self.process.start()

    def wait(self) -> Done:
        self.process.join(timeout=120)
        code = self.process.exitcode
        if code is None:
            self.process.kill()
            self.process.join()
            raise TimeoutError(self.log.read_text())
        return Done(code, self.log.read_text(errors="replace"))


def dlp(words: Sequence[str | Path], log: Path, at: Path, user: int = 0) -> Done:
    return Child(words, log, at, user).wait()


def _main(words: list[str], log: str, at: str, user: int) -> None:
    output = os.open(log, os.O_WRONLY | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.chdir(at)
    if user:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    from dlp_cli.__main__ import main

    sys.argv = ["dlp", *words]
    try:
        main()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
