"""Shards: parts of a set of photos, each described by a process of its own, then put together.

A shard is a file of embeddings like any other. It holds whole batches, so that every photo is in
the batch that it would be in without shards, and the file they make is the same to the byte.
"""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from dlp_plugins._files import writing
from dlp_plugins.embeddings.record import record_path
from dlp_plugins.errors import UsageError
from dlp_plugins.photos.source import Photos, Read

BLOCK_ROWS = 4096


@dataclass(frozen=True)
class Shard:
    """The `number`-th of `total` parts, counted from 1."""

    number: int
    total: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """From 'I/N'; UsageError for anything else."""
        found = re.fullmatch(r"(\d{1,5})/(\d{1,5})", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise UsageError(f"--shard {text}: write I/N with I from 1 to N, such as 2/4.")
        return cls(int(found[1]), int(found[2]))

    def bounds(self, photos: int, batch: int) -> tuple[int, int]:
        """First photo, and the first one after the shard; UsageError if it would be empty."""
        batches = -(-photos // batch)
        if batches < self.total:
            raise UsageError(
                f"--shard {self.number}/{self.total}: {photos:,} photos make {batches:,} batches "
                f"of {batch}, too few for so many shards."
            )
        first, last = (batches * k // self.total * batch for k in (self.number - 1, self.number))
        return first, min(last, photos)

    def path(self, out: Path) -> Path:
        """`x-00002-of-00004.npy` for `x.npy`."""
        return out.with_name(f"{out.stem}-{self.number:05}-of-{self.total:05}.npy")


def part_of(photos: Photos, first: int, last: int) -> Photos:
    """The photos from `first` to before `last`."""

    def reader(size: tuple[int, int], interpolation: str) -> Read:
        read = photos.reader(size, interpolation)
        return lambda i: read(first + i)

    return Photos(photos.names[first:last], reader, lambda i: photos.stamp(first + i))


@dataclass(frozen=True)
class Finished:
    """A finished shard.

    first: its first photo. last: the first one after it.
    note: of its photos; see `embed._State.save`.
    """

    path: Path
    first: int
    last: int
    note: dict[str, Any]

    def blocks(self) -> Iterator[np.ndarray]:
        rows = np.load(self.path, mmap_mode="r", allow_pickle=False)
        for start in range(0, len(rows), BLOCK_ROWS):
            yield np.asarray(rows[start : start + BLOCK_ROWS])

    def rows(self) -> tuple[tuple[int, ...], np.dtype]:
        found = np.load(self.path, mmap_mode="r", allow_pickle=False)
        return found.shape, found.dtype


def describe(first: int, last: int, note: dict[str, Any], request: dict[str, Any]) -> dict:
    """What the JSON file beside a shard says of it, for `find_finished`."""
    return {"first": first, "last": last, "note": note, "request": request}


def find_finished(out: Path, request: dict[str, Any]) -> dict[int, Finished]:
    """The finished shards of `out` that were described in the same way, by their first photo."""
    wanted = json.loads(writing.to_json(request))
    found = {}
    for path in sorted(out.parent.glob(f"{glob.escape(out.stem)}-*-of-*.npy")):
        try:
            told = json.loads(record_path(path).read_text(encoding="utf-8"))["shard"]
            if told["request"] == wanted:
                first, last = int(told["first"]), int(told["last"])
                found[first] = Finished(path, first, last, dict(told["note"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # not finished, or something else of that name
    return found
