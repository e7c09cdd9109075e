"""`dlp` in processes of their own that start at once: forked from a server that has torch loaded.

A child is where a test can send signals, fill the disk, or give up root's privileges.
"""

from __future__ import annotations

import ctypes
import functools
import multiprocessing
import os
import sys
from collections.abc import Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, NamedTuple

LOADED = [
    "dlp_cli.app", "dlp_plugins.training.run", "dlp_plugins.embeddings.run",
    "dlp_plugins.photos.embed", "dlp_plugins.bench.runner", "dlp_cli.display.live",
    "dlp_cli.display.results", "dlp_plugins.photos.predict", "pyarrow.parquet", "warm",
]  # fmt: skip
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
        privileged: as the tests are; else a file's mode holds for root, too.
        watch: file of what Python's audit hooks see: files opened, programs started, and the like.
    """

    def __init__(
        self,
        words: Sequence[str | Path],
        log: Path,
        at: Path,
        privileged: bool = True,
        watch: Path | None = None,
    ) -> None:
        _start_server()
        self.log = log
        log.touch()
        ready, begins = _context.Pipe(duplex=False)
        arguments = (list(map(str, words)), str(log), str(at), privileged, watch, begins)
        self.process: ForkServerProcess = _context.Process(target=_main, args=arguments)
        self.process.start()
        begins.close()
        ready.poll(60)  # a signal before this would meet the machinery, not the command
        ready.close()

    def wait(self) -> Done:
        self.process.join(timeout=120)
        code = self.process.exitcode
        if code is None:
            self.process.kill()
            self.process.join()
            raise TimeoutError(self.log.read_text())
        return Done(code, self.log.read_text(errors="replace"))


def dlp(words: Sequence[str | Path], log: Path, at: Path, **more: Any) -> Done:
    return Child(words, log, at, **more).wait()


def _drop_capabilities() -> None:
    """Without them root, too, has only what the modes of its files allow."""
    version_3, all_threads_of_this_process = 0x20080522, 0
    header = (ctypes.c_uint32 * 2)(version_3, all_threads_of_this_process)
    nothing = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable, twice 32 bits
    if ctypes.CDLL(None, use_errno=True).capset(header, nothing):
        raise OSError(ctypes.get_errno(), "capset")


WATCHED = (
    "open", "os.listdir", "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen",
    "socket.connect", "pickle.find_class", "ctypes.dlopen", "shutil.rmtree", "os.remove",
)  # fmt: skip


def _watch(events: Path) -> None:
    file = os.open(events, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in WATCHED:
            os.write(file, f"{event}\t{arguments[0] if arguments else ''}\n".encode())

    sys.addaudithook(hook)


def _main(
    words: list[str], log: str, at: str, privileged: bool, watch: Path | None, begins: Connection
) -> None:
    output = os.open(log, os.O_WRONLY | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.chdir(at)
    if not privileged:
        _drop_capabilities()
    from dlp_cli.__main__ import main

    sys.argv = ["dlp", *words]
    if watch:
        _watch(watch)
    begins.close()
    try:
        main()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
