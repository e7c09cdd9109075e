"""The folder of a propagation that goes through files: what is finished, and of which inputs.

A stage writes into `NAME.tmp`, which takes the name NAME once the stage has ended. Arrays are files
of plain numbers; `facts.json` of a stage holds their types and shapes and what else is known.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from dlp_plugins._files.lock import Lock
from dlp_plugins._files.reading import read_json
from dlp_plugins._files.scratch import reserve, unnamed_array
from dlp_plugins._files.writing import to_json, write_text
from dlp_plugins.environment import boot
from dlp_plugins.errors import DataError, RunFolderError, SaveError, UsageError, in_words

SUFFIX = ".work"
RECORD, FACTS, LOCK = "record.json", "facts.json", ".lock"
VERSION = 1  # of the files' form
ADVICE = "What is finished is kept; go on with --resume."


@dataclass
class Stage:
    """Files that are being written."""

    folder: Path
    arrays: dict[str, tuple[str, list[int]]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def array(self, name: str, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
        """A mapped file to write into, whose room on the disk is reserved.

        Else a full disk would end the program without a word.
        """
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        with (self.folder / name).open("wb") as file:
            if size:
                reserve(file, size)
        self.arrays[name] = (dtype.str, list(shape))
        return _mapped(self.folder / name, dtype, shape, "r+")

    @contextlib.contextmanager
    def growing(self, name: str, dtype: Any) -> Iterator[Callable[[np.ndarray], None]]:
        """Gives a function that appends to a file of one dimension."""
        dtype = np.dtype(dtype)
        with (self.folder / name).open("wb") as file:

            def append(part: np.ndarray) -> None:
                np.ascontiguousarray(part, dtype).tofile(file)

            yield append
        length = (self.folder / name).stat().st_size // dtype.itemsize
        self.arrays[name] = (dtype.str, [length])

    def written(self, name: str) -> np.ndarray:
        """An array that was written before, to change it."""
        dtype, shape = self.arrays[name]
        return _mapped(self.folder / name, np.dtype(dtype), tuple(shape), "r+")

    def drop(self, name: str) -> None:
        """Remove an array that only this stage needed."""
        del self.arrays[name]
        (self.folder / name).unlink()


@dataclass(frozen=True)
class Finished:
    """What a stage left: arrays as mapped files, and facts."""

    folder: Path
    arrays: dict[str, tuple[str, list[int]]]
    facts: dict[str, Any]

    def array(self, name: str) -> np.ndarray:
        """Writable, but what is written stays in memory."""
        dtype, shape = self.arrays[name]
        return _mapped(self.folder / name, np.dtype(dtype), tuple(shape), "c")


@dataclass(frozen=True)
class Work:
    """A work folder that this process alone may write into (see `at_work`)."""

    folder: Path
    record: dict[str, Any]

    def finished(self, name: str) -> Finished | None:
        """What the stage left; None where it has not ended."""
        folder = self.folder / name
        if not folder.is_dir():
            return None
        found = _read(folder / FACTS)
        if not {"boot", "arrays", "facts"} <= found.keys():
            raise _damaged(folder / FACTS)
        # a machine that fell over may have lost what it had not written yet
        if found["boot"] != boot():
            return None
        return Finished(folder, found["arrays"], found["facts"])

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """Context in which a stage writes its files; they are kept if it ends well.

        Raises:
            SaveError: the disk is full or the folder cannot be written.
        """
        making = self.folder / f"{name}.tmp"
        try:
            for old in (making, self.folder / name):
                if old.exists():
                    shutil.rmtree(old)
            making.mkdir()
            stage = Stage(making)
            yield stage
            facts = {"boot": boot(), "arrays": stage.arrays, "facts": stage.facts}
            (making / FACTS).write_text(to_json(facts), encoding="utf-8")
            if not boot():  # nothing tells whether the machine was started again
                _sync(making)
            making.replace(self.folder / name)
        except BaseException as error:
            shutil.rmtree(making, ignore_errors=True)
            if not isinstance(error, OSError):
                raise
            raise SaveError(
                f"{self.folder} could not be written: {in_words(error)} {ADVICE}"
            ) from error

    def scratch(self, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
        """A mapped file without a name, which is gone when nothing refers to it.

        Raises:
            SaveError: the disk is full.
        """
        try:
            return unnamed_array(self.folder, dtype, shape)
        except OSError as error:
            raise SaveError(
                f"{self.folder} could not be written: {in_words(error)} {ADVICE}"
            ) from error

    def remove(self, *names: str) -> None:
        """Give the room of stages back whose files nobody needs any more."""
        for name in names:
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def drop(self, name: str, *arrays: str) -> None:
        """The same of some arrays of a finished stage; what is not there is no matter."""
        for array in arrays:
            (self.folder / name / array).unlink(missing_ok=True)

    def end(self) -> None:
        """Remove the folder: the table is written."""
        shutil.rmtree(self.folder, ignore_errors=True)


def work_folder(out: Path) -> Path:
    """Where the work on a table is: beside it."""
    return out.with_name(out.name + SUFFIX)


def is_unfinished(out: Path) -> bool:
    """Whether there is work on a table that could go on."""
    folder = work_folder(out)
    return folder.exists() and _strange(folder) is None


def forget(out: Path) -> None:
    """Remove unfinished work on a table that was written in another way.

    What another process works on stays, and a folder that is no work of this program.
    """
    folder = work_folder(out)
    if is_unfinished(out):
        with contextlib.suppress(RunFolderError, SaveError), Lock(folder / LOCK):
            shutil.rmtree(folder, ignore_errors=True)


def _strange(folder: Path) -> str | None:
    """The name of something in the folder that no work on a table has put there."""
    if not folder.is_dir():
        return f"a file of the name {folder.name}"
    if (folder / RECORD).is_file():
        return None
    ours = (LOCK, f".{RECORD}.")  # the second is how a record begins that was not written whole
    return next((p.name for p in folder.iterdir() if not p.name.startswith(ours)), None)


def identity(path: Path | str | None) -> list[Any] | None:
    """What tells a file from another one and from itself after a change."""
    if path is None:
        return None
    found = Path(path).stat()
    return [Path(path).name, found.st_size, found.st_mtime_ns]


def digest(values: Tensor) -> str:
    """What tells numbers from others."""
    return hashlib.sha256(values.contiguous().numpy().tobytes()).hexdigest()


def check_work(out: Path, record: dict[str, Any], resume: bool, overwrite: bool) -> None:
    """Refuse to go on with other inputs, or to throw unfinished work away without being told to.

    Raises:
        UsageError: both say what to do instead. So does a folder that is no work of this program.
        DataError: the folder is damaged.
    """
    folder = work_folder(out)
    if not folder.exists():
        return
    if strange := _strange(folder):
        raise UsageError(
            f"{folder} is where the work on {out.name} would go, but it holds {strange}, which is "
            "not this program's. Move it away, or give another --out."
        )
    if not resume:
        if overwrite:
            return
        raise UsageError(
            f"{folder} holds unfinished work. Go on with --resume, or start again with --overwrite."
        )
    if not (folder / RECORD).is_file():  # killed before anything was done
        return
    _check_same(folder, _read(folder / RECORD), record)


def _check_same(folder: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    if differing := differences(old, new):
        raise UsageError(
            f"{folder} holds work on other inputs or settings ({', '.join(differing)}). Give the "
            "same again, or start again with --overwrite instead of --resume."
        )


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Which parts of two records differ; the width of the solve may."""
    new = json.loads(to_json(new))
    return sorted(key for key in {*old, *new} - {"width"} if old.get(key) != new.get(key))


@contextlib.contextmanager
def at_work(out: Path, record: dict[str, Any], resume: bool) -> Iterator[Work]:
    """Context in which this process alone works in the folder beside `out`.

    Without `resume` what is there is thrown away.

    Raises:
        RunFolderError: another process works there.
        SaveError: it cannot be made.
    """
    folder = work_folder(out)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise SaveError(f"{folder} could not be made: {in_words(error)}") from error
    with Lock(folder / LOCK):
        known = folder / RECORD
        if resume and known.is_file():
            before = _read(known)  # once more: another process may have begun since `check_work`
            _check_same(folder, before, record)
            record = record | {"width": before.get("width")}
        else:
            for old in folder.iterdir():
                if old.name != LOCK:
                    shutil.rmtree(old) if old.is_dir() else old.unlink()
            write_text(known, to_json(record, indent=2))
        try:
            yield Work(folder, record)
        finally:
            # nothing to go on with: no stage was finished
            if folder.is_dir() and not any(path.is_dir() for path in folder.iterdir()):
                shutil.rmtree(folder, ignore_errors=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}. Start again with --overwrite.") from None
    if not isinstance(found, dict):
        raise _damaged(path)
    return found


def _damaged(path: Path) -> DataError:
    return DataError(f"{path}: is damaged. Start again with --overwrite.")


def _mapped(path: Path, dtype: np.dtype, shape: Sequence[int], mode: Any) -> np.ndarray:
    size = math.prod(shape) * dtype.itemsize
    if path.stat().st_size != size:
        raise _damaged(path)
    if not size:
        return np.empty(shape, dtype)
    return np.asarray(np.memmap(path, dtype, mode, shape=tuple(shape)))


def _sync(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())
