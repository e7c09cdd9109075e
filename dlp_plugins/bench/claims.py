"""Which of several `dlp bench` on one folder does which trial.

A trial is claimed by a file that only one process can create. The file names the process's session,
whose own file has a number that the process counts up. A session is dead when its process is gone,
or, on another machine, when its number stands still; its claims are then taken over. The next file
has the next number, so that of several which take over at once only one succeeds:

    _claims/sessions/SESSION     process, machine, beats
    _claims/TRIAL.0, TRIAL.1     the session that has the trial; the last one counts
    _claims/TRIAL.failed         the session that tried it in vain, and why
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import psutil

from dlp_plugins._files import writing
from dlp_plugins.environment import boot
from dlp_plugins.errors import SaveError

BEAT_SECONDS = 5.0
DEAD_SECONDS = 60.0  # without a beat, of a session on another machine
FOLDER = "_claims"


class Claims:
    """Context: this process's session among those that work on a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER
        self.session = secrets.token_hex(8)
        self._sessions = self.folder / "sessions"
        self._own = self._sessions / self.session
        self._beats = 0
        self._over = threading.Event()
        self._seen: dict[str, tuple[int, float]] = {}  # beats of others, and since when
        self._met: set[str] = set()  # sessions that worked beside this one
        self._held: dict[str, Path] = {}
        self._lost = False

    def __enter__(self) -> Self:
        try:
            self._sessions.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SaveError(f"{self._sessions} could not be made: {error.strerror}.") from error
        self._beat()
        self._alive()
        threading.Thread(target=self._keep_beating, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        with contextlib.suppress(OSError):
            self._own.unlink()

    @contextlib.contextmanager
    def claimed(self, name: str, lock: Path) -> Iterator[bool]:
        """Context; whether this process has the trial of that name, which it then holds.

        Args:
            lock: of the trial's run folder. A session that died on another machine leaves it.

        Raises:
            SaveError: the claim cannot be written.
        """
        path = self._take(_file_name(name), lock)
        if path is None:
            yield False
            return
        self._held[name] = path
        try:
            yield True
        finally:
            del self._held[name]
            if self._holds(path):
                for file in self._files(_file_name(name)):
                    file.unlink(missing_ok=True)

    @property
    def lost(self) -> bool:
        """Whether another has taken over what this process holds: it was silent for too long."""
        return self._lost

    def failed(self, name: str, why: str) -> None:
        """Keep those from trying in vain, too, that work beside this session."""
        record = {"session": self.session, "why": why}
        writing.write_text(self._failure(name), writing.to_json(record), "")

    def failure(self, name: str) -> str | None:
        """Why another session, one that has worked beside this one, failed at a trial."""
        self._alive()
        record = _read(self._failure(name))
        if record.get("session") in self._met - {self.session}:
            return str(record.get("why"))
        return None

    # -- files -----------------------------------------------------------------------------------

    def _failure(self, name: str) -> Path:
        return self.folder / f"{_file_name(name)}.failed"

    def _files(self, name: str) -> list[Path]:
        """The claims on a trial, oldest first."""
        found = []
        for path in self.folder.glob(f"{name}.*"):
            if path.suffix[1:].isdecimal() and path.stem == name:
                found.append(path)
        return sorted(found, key=lambda path: int(path.suffix[1:]))

    def _take(self, name: str, lock: Path) -> Path | None:
        """The file of a new claim; None where a living session has one."""
        files = self._files(name)
        number = 0
        if files:
            holder = _read(files[-1]).get("session")
            if holder in self._alive():
                return None
            _unlock(lock, _read(self._sessions / str(holder)))
            number = int(files[-1].suffix[1:]) + 1
        path = self.folder / f"{name}.{number}"
        draft = self.folder / f".{self.session}"
        writing.write_text(draft, writing.to_json({"session": self.session}), "")
        try:
            os.link(draft, path)  # whole at once, and only if there is none of that name
        except FileExistsError:
            return None
        except OSError as error:
            raise SaveError(f"{path} could not be written: {error.strerror}.") from error
        finally:
            draft.unlink(missing_ok=True)
        return path

    def _holds(self, path: Path) -> bool:
        files = self._files(path.stem)
        return bool(files) and files[-1] == path

    # -- sessions --------------------------------------------------------------------------------

    def _alive(self) -> set[str]:
        """The sessions that live; all that ever did are in `_seen`."""
        found, now = set(), time.monotonic()
        for path in self._sessions.glob("[!.]*"):
            record, name = _read(path), path.name
            beats = int(record.get("beats", 0))
            if name not in self._seen or beats != self._seen[name][0]:
                self._seen[name] = beats, now
            silent = now - self._seen[name][1]
            if _runs(record) if _here(record) else silent < DEAD_SECONDS:
                found.add(name)
        self._met |= found
        return found

    def _keep_beating(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            # The trial itself reports a full disk; a shared folder may be away for a moment.
            with contextlib.suppress(SaveError, OSError):
                self._beat()
                if any(not self._holds(path) for path in list(self._held.values())):
                    self._lost = True

    def _beat(self) -> None:
        """Count up.

        Raises:
            SaveError: the disk is full.
        """
        self._beats += 1
        process = psutil.Process()
        record = {
            "process": process.pid,
            "created": process.create_time(),
            "host": socket.gethostname(),
            "boot": boot(),
            "beats": self._beats,
        }
        writing.write_text(self._own, writing.to_json(record), "")


def _unlock(lock: Path, dead: dict[str, Any]) -> None:
    """Remove the lock of a session that died on another machine, which alone could see it go."""
    holder = {} if _here(dead) else _read(lock)
    if holder and all(holder.get(key) == dead.get(key) for key in ("process", "host")):
        lock.unlink(missing_ok=True)


def _file_name(name: str) -> str:
    """Of a trial: readable, and of this one alone."""
    readable = re.sub(r"[^\w=,-]", "_", name)
    return f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _here(record: dict[str, Any]) -> bool:
    """Whether the session's process is one that this process can see."""
    return record.get("host") == socket.gethostname() and record.get("boot") == boot()


def _runs(record: dict[str, Any]) -> bool:
    try:
        return bool(psutil.Process(int(record["process"])).create_time() == record["created"])
    except (psutil.NoSuchProcess, KeyError, TypeError, ValueError):
        return False
    except psutil.Error:
        return True


def _read(path: Path) -> dict[str, Any]:
    """A record, or nothing where it is missing, half written or damaged."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
    return {}
