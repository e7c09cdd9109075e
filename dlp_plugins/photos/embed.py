"""Photos to a file of embeddings, with their names and how they were made beside it."""

from __future__ import annotations

import csv
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from dlp_plugins._files import writing
from dlp_plugins._files.lock import Lock
from dlp_plugins.datasets.contract import list_unreadable
from dlp_plugins.embeddings.ids import beside
from dlp_plugins.embeddings.record import record_path, write_record
from dlp_plugins.environment import choose_device
from dlp_plugins.errors import DataError
from dlp_plugins.photos import decoding, shards
from dlp_plugins.photos.decoding import Bad
from dlp_plugins.photos.describer import DEFAULT, Describer, new_describer
from dlp_plugins.photos.partial import PartialRows, partial_of
from dlp_plugins.photos.shards import Finished, Shard, find_finished, part_of
from dlp_plugins.photos.source import COLUMN, Photos, open_photos, warn_of_skipped

BATCH = {"cpu": 16, "cuda": 256}  # images at a time; a small batch stays in the CPU's cache
SAVE_SECONDS = 5.0  # between two savings: what a crash loses at most
Progress = Callable[[int], object]


@dataclass(frozen=True)
class Embedded:
    """What `embed` wrote.

    points, dim: of the embeddings. skipped: sentences on images that were left out.
    resumed: images that an earlier, broken-off call had done. seconds: of this call.
    described: images that this call sent through the network, those left out included.
    """

    out: Path
    points: int
    dim: int
    skipped: list[str]
    resumed: int
    seconds: float
    described: int


def embed(
    photos: str | Path | Photos,
    out: str | Path,
    backbone: str | Path = DEFAULT,
    *,
    size: int | None = None,
    flips: bool = False,
    float16: bool = False,
    bad: Bad = "stop",
    precision: str = "auto",
    weights_file: Path | None = None,
    network: Literal["student", "teacher"] = "student",
    column: str | None = None,
    split: str = "train",
    device: str = "auto",
    overwrite: bool = False,
    shard: str = "",
    progress: Progress = lambda done: None,
    save_seconds: float = SAVE_SECONDS,
) -> Embedded:
    """Embed photos; a call that was broken off goes on where it was, to the same bytes.

    Writes `out`, a .npy file [points, dim] of rows of unit length; beside it `x.ids.csv`, the
    photos' names, and `x.json`, how they were described.

    Args:
        photos: see `open_photos`, whose `column` and `split` these are.
        backbone, size, flips, precision, weights_file, network: see `new_describer`.
        float16: half the size of float32.
        bad: what to do about images that cannot be read: 'stop' names them all, 'skip' leaves them
            out with a warning that names them.
        device: 'auto' (a GPU where there is one), 'cpu' or 'cuda'.
        overwrite: replace the file.
        shard: 'I/N': describe the I-th of N parts alone and write `x-0000I-of-0000N.npy`. A call
            without it takes what such shards hold, and describes the rest.
        progress: called with the number of images done.
        save_seconds: between two savings.

    Raises:
        UsageError: a path, an option or a backbone is wrong.
        DataError: no image, or one that cannot be read.
        SaveError: the disk is full or the folder cannot be written; what was saved stays.
        RunFolderError: another process writes this file.
    """
    started, out = time.monotonic(), Path(out)
    chosen = Shard.parse(shard) if shard else None
    whole, out = out, chosen.path(out) if chosen else out
    writing.check_place(out, (".npy",), "the file of embeddings", overwrite)
    # of a call that was broken off at its end they are there already
    replace = overwrite or partial_of(out).exists()
    for path, what in ((beside(out), "their names"), (record_path(out), "how they were described")):
        writing.check_place(path, (path.suffix,), what, replace)
    found = photos if isinstance(photos, Photos) else open_photos(photos, column, split)
    where = choose_device(device)
    describer = new_describer(
        backbone, size=size, flips=flips, precision=precision, weights_file=weights_file,
        network=network, device=where,
    )  # fmt: skip
    dtype = np.dtype(np.float16 if float16 else np.float32)
    request = {
        "record": describer.record.as_dict(), "batch": BATCH[where.type], "numbers": dtype.str
    }  # fmt: skip
    parts, bounds = {}, (0, len(found))
    if chosen:
        bounds = chosen.bounds(len(found), BATCH[where.type])
        found = part_of(found, *bounds)
    else:
        parts = find_finished(whole, request)
    with Lock(out.with_name(f".{out.name}.lock")):
        writing.remove_left_over(out.parent, [beside(out).name, record_path(out).name])
        rows = PartialRows(out, describer.dim, dtype, request)
        try:
            state = _State(found, rows)
            resumed = state.done
            described = _describe_all(describer, state, parts, bad, progress, save_seconds)
            _write_ids(beside(out), [found.names[i] for i in state.kept()])
            about = shards.describe(*bounds, rows.note, request) if chosen else None
            write_record(out, describer.record, rows.rows, describer.dim, about)
            rows.finish()
        finally:
            rows.close()
    warn_of_skipped(state.problems, len(found))
    seconds = time.monotonic() - started
    return Embedded(out, rows.rows, describer.dim, state.problems, resumed, seconds, described)


def share_of(photos: Photos, shard: str, device: str = "auto") -> int:
    """How many photos `embed` describes for a shard 'I/N'; '' for all."""
    if not shard:
        return len(photos)
    first, last = Shard.parse(shard).bounds(len(photos), BATCH[choose_device(device).type])
    return last - first


class _State:
    """How far the photos are described; the file of rows keeps it between two calls.

    done: photos, of which some may be skipped: positions, and a sentence on each.
    """

    def __init__(self, photos: Photos, rows: PartialRows) -> None:
        self.photos, self.rows = photos, rows
        self._restart()
        note = rows.note
        if note and note["done"] <= len(photos):
            self._advance(note["done"])
            if self._digest.hexdigest() == note["digest"]:
                self.skipped += note["skipped"]
                self.problems += note["problems"]
                return
            self._restart()  # names, sizes or times have changed since
        rows.forget()

    def _restart(self) -> None:
        self.done, self._digest = 0, hashlib.sha256()
        self.skipped: list[int] = []
        self.problems: list[str] = []

    def _advance(self, done: int) -> None:
        for i in range(self.done, done):
            self._digest.update(self._line(i))
        self.done = done

    def _line(self, i: int) -> bytes:
        return f"{self.photos.names[i]}\0{self.photos.stamp(i)}\0".encode()

    def add(self, batch: decoding.Batch, embeddings: np.ndarray) -> None:
        first, kept = self.done, set(batch.positions)
        self.rows.add(embeddings)
        self._advance(batch.last)
        self.skipped += [i for i in range(first, batch.last) if i not in kept]
        self.problems += batch.problems

    def take(self, part: Finished) -> bool:
        """Add the rows of a shard; False if its photos have changed since, or it is damaged."""
        if part.last > len(self.photos):
            return False
        other = hashlib.sha256()
        for i in range(part.first, part.last):
            other.update(self._line(i))
        try:
            shape, dtype = part.rows()
        except (OSError, ValueError, EOFError):
            return False
        kept = part.last - part.first - len(part.note["skipped"])
        same = part.note["digest"] == other.hexdigest()
        if not same or shape != (kept, self.rows.dim) or dtype != self.rows.dtype:
            return False
        for block in part.blocks():
            self.rows.add(block)
        self._advance(part.last)
        self.skipped += [part.first + i for i in part.note["skipped"]]
        self.problems += part.note["problems"]
        return True

    def save(self) -> None:
        note = {"done": self.done, "digest": self._digest.hexdigest()}
        self.rows.save({**note, "skipped": self.skipped, "problems": self.problems})

    def kept(self) -> list[int]:
        """Positions of the photos that have a row."""
        skipped = set(self.skipped)
        return [i for i in range(len(self.photos)) if i not in skipped]


def _describe_all(
    describer: Describer,
    state: _State,
    parts: dict[int, Finished],
    bad: Bad,
    progress: Progress,
    save_seconds: float,
) -> int:
    """All photos that are left, those of finished shards from there; how many were described."""
    progress(state.done)
    resumed, described = state.done, 0
    while state.done < len(state.photos):
        part = parts.pop(state.done, None)
        if part is None or not state.take(part):
            last = min((first for first in parts if first > state.done), default=len(state.photos))
            if bad == "stop" and state.problems:
                raise _stopped(state, [], state.done)
            first = state.done
            _describe(describer, state, last, bad, progress, save_seconds)
            described += state.done - first
        progress(state.done)
    if bad == "stop" and state.problems:
        raise _stopped(state, [], state.done)
    if state.rows.rows == 0:
        raise DataError(list_unreadable(state.problems, len(state.photos)))
    if state.done > resumed or not state.rows.note:
        state.save()
    return described


def _describe(
    describer: Describer, state: _State, last: int, bad: Bad, progress: Progress, seconds: float
) -> None:
    """The photos up to `last`."""
    read = state.photos.reader(describer.record.size, describer.record.interpolation)
    size, saved = BATCH[describer.device.type], time.monotonic()
    for batch in decoding.batches(read, state.done, last, size):
        if batch.problems and bad == "stop":
            state.save()
            raise _stopped(state, batch.problems, batch.last)
        found = describer(batch.images).numpy() if batch.positions else np.empty((0, describer.dim))
        state.add(batch, found)
        progress(state.done)
        if time.monotonic() - saved >= seconds:
            state.save()
            saved = time.monotonic()


def _stopped(state: _State, problems: list[str], last: int) -> DataError:
    kept = f" The {state.done:,} images before are kept." if state.done else ""
    return decoding.stopped(state.photos, [*state.problems, *problems], last, kept)


def _write_ids(path: Path, names: Sequence[str]) -> None:
    with (
        writing.replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        csv.writer(file).writerows([[COLUMN], *([name] for name in names)])
