"""One process at a time in a folder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import stat
import threading
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from dlp_plugins.environment import boot
from dlp_plugins.errors import RunFolderError, SaveError

# fcntl's locks belong to a process, so threads of one process are told apart by this set.
_held: set[Path] = set()
_guard = threading.Lock()


class Lock:
    """Context in which this process alone may write into the folder.

    The kernel keeps the lock and drops it when the process ends, however it ends, so a dead
    process's lock is taken over at once. The file names the holder, for the message and for
    another machine, which cannot see that process.

    Raises:
        RunFolderError: another process holds it.
        SaveError: the lock file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._key = path.resolve()
        self._file = -1

    def __enter__(self) -> Self:
        with _guard:
            if self._key in _held:
                raise self._in_use(_this_process())
            self._file = self._take()
            _held.add(self._key)
        return self

    def __exit__(self, *_: object) -> None:
        with _guard:
            # Removed before it is given up, so that nobody's new lock is removed. The folder itself
            # may be gone, or another file may lie in this place.
            with contextlib.suppress(OSError):
                if _same_file(self._file, self.path):
                    self.path.unlink()
            os.close(self._file)
            _held.discard(self._key)

    def _take(self) -> int:
        while True:
            file = self._open()
            try:
                locked = _lock(file)
                if locked is False:
                    raise self._in_use(_read(file))
                if not _same_file(file, self.path):
                    os.close(file)  # its former holder has just removed it
                    continue
                if (holder := _read(file)) and _elsewhere(holder):
                    raise RunFolderError(
                        f"{self.path.parent} is in use by {_words(holder)}; this machine cannot "
                        f"see whether that process still runs. If not, delete {self.path}."
                    )
                if locked is None and _runs(holder):
                    raise self._in_use(holder)
                os.ftruncate(file, 0)
                os.pwrite(file, json.dumps(_this_process()).encode(), 0)
                return file
            except BaseException as error:
                with contextlib.suppress(OSError):
                    os.close(file)
                if isinstance(error, OSError):  # a full disk
                    raise self._unusable(error) from error
                raise

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            file = os.open(self.path, flags, 0o666)
        except OSError as error:
            raise self._unusable(error) from error
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise SaveError(f"{self.path} is not an ordinary file. Remove it.")
        return file

    def _unusable(self, error: OSError) -> SaveError:
        return SaveError(f"{self.path} could not be written: {error.strerror}.")

    def _in_use(self, holder: dict[str, Any]) -> RunFolderError:
        return RunFolderError(
            f"{self.path.parent} is in use by {_words(holder)}. Wait until it ends, or choose "
            "another folder with --out."
        )


def _lock(file: int) -> bool | None:
    """Whether this process now has the kernel's lock; None on a file system without locks."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True


def _runs(holder: dict[str, Any]) -> bool:
    """Whether the holder, on this machine, is alive."""
    process = holder.get("process")
    if not isinstance(process, int) or process in (0, os.getpid()):
        return False
    try:
        os.kill(process, 0)  # signal 0 asks only whether the process is there
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _this_process() -> dict[str, Any]:
    return {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "boot": boot(),
        "since": datetime.now().isoformat(" ", "seconds"),
    }


def _elsewhere(holder: dict[str, Any]) -> bool:
    """Whether another machine wrote that, so that its lock may not be seen here."""
    return holder.get("host") != socket.gethostname() and holder.get("boot") != (boot() or None)


def _words(holder: dict[str, Any]) -> str:
    return (
        f"process {holder.get('process', '?')} on {holder.get('host', '?')} "
        f"(since {holder.get('since', '?')})"
    )


def _read(file: int) -> dict[str, Any]:
    """The holder, or nothing where the file is empty or damaged."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(os.pread(file, 4096, 0))
        if isinstance(found, dict):
            return found
    return {}


def _same_file(file: int, path: Path) -> bool:
    try:
        there = os.stat(path, follow_symlinks=False)
    except OSError:
        return False
    here = os.fstat(file)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
