"""Rows of a .npy file that is written bit by bit, and goes on after a crash where it was saved.

Beside `x.npy` lie, until it is whole, `.x.npy.partial` (the file as it will be) and
`.x.npy.partial.json` (what it belongs to and how far it is). The rows are on the disk before the
note that counts them, so whatever the note counts is there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dlp_plugins._files import writing
from dlp_plugins._files.reading import read_json
from dlp_plugins.errors import SaveError

HEADER = 128  # bytes of the .npy header, whatever the number of rows


def partial_of(path: Path) -> Path:
    """Where the rows of a file are until all are there."""
    return path.with_name(f".{path.name}.partial")


class PartialRows:
    """The rows [n, dim] of `path`, of which some may be there from before.

    For one process at a time, which holds a lock.

    Args:
        dtype: of the rows.
        request: what the rows depend on; those of another request are not used.

    Attributes:
        rows: that are on the disk.
        note: what the caller had saved with them; {} at the start.
    """

    def __init__(self, path: Path, dim: int, dtype: np.dtype, request: dict[str, Any]) -> None:
        self.path, self.dim, self.dtype, self.request = path, dim, dtype, request
        self._data = partial_of(path)
        self._state = path.with_name(f".{path.name}.partial.json")
        writing.remove_left_over(path.parent, [self._state.name])
        self.rows, self.note = self._read_state()
        with self._explained():
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
            self._file = os.fdopen(os.open(self._data, flags, 0o666), "rb+")
            if os.fstat(self._file.fileno()).st_size < self._end(self.rows):
                self.rows, self.note = 0, {}
            self._file.truncate(self._end(self.rows))
            self._file.seek(self._end(self.rows))

    def forget(self) -> None:
        """Start from the first row."""
        self.rows, self.note = 0, {}
        with self._explained():
            self._state.unlink(missing_ok=True)  # before the rows that it counts
            self._file.truncate(HEADER)
            self._file.seek(HEADER)

    def add(self, rows: np.ndarray) -> None:
        """Append rows [b, dim]; they count once `save` is called."""
        with self._explained():
            self._file.write(np.ascontiguousarray(rows, dtype=self.dtype).tobytes())
        self.rows += len(rows)

    def save(self, note: dict[str, Any]) -> None:
        """Bring all rows to the disk, with a note of how they came about."""
        with self._explained():
            self._file.flush()
            os.fsync(self._file.fileno())
        self.note = note
        state = {"request": self.request, "rows": self.rows, "note": note}
        writing.write_text(self._state, writing.to_json(state))

    def finish(self) -> None:
        """Put the file in its place."""
        with self._explained():
            self._file.seek(0)
            self._file.write(_header(self.rows, self.dim, self.dtype))
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._data.replace(self.path)
            self._state.unlink(missing_ok=True)

    def close(self) -> None:
        self._file.close()

    def _end(self, rows: int) -> int:
        return HEADER + rows * self.dim * self.dtype.itemsize

    def _read_state(self) -> tuple[int, dict[str, Any]]:
        try:
            if self._state.is_file() and not self._state.is_symlink():
                state = read_json(self._state)
                if state["request"] == json.loads(writing.to_json(self.request)):
                    return int(state["rows"]), dict(state["note"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # damaged: nothing of it can be used
        return 0, {}

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SaveError(f"{self._data} could not be written: {error.strerror}.") from error


def _header(rows: int, dim: int, dtype: np.dtype) -> bytes:
    """The header of a .npy file (format 1.0), padded to HEADER bytes."""
    text = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': ({rows}, {dim}), }}"
    padded = text.ljust(HEADER - 11) + "\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded.encode()
