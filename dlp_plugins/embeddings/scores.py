"""Scores [n, c] that arrive by columns and are read by rows, on disk where memory is short."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Self

import numpy as np
import torch
from torch import Tensor

from dlp_plugins.errors import SaveError
from dlp_plugins.propagation import to_probabilities

BLOCK_ENTRIES = 2**22  # probabilities of a block of rows held at once: 16 MiB


class Scores:
    """Scores [n, c]: columns arrive a chunk at a time, rows are read a block at a time."""

    def __init__(self, scratch: Path | None) -> None:
        self.num_classes = 0
        self._chunks: list[Tensor] = []
        self._file: IO[bytes] | None = None
        self._offsets: list[tuple[int, int]] = []  # byte offset and width of each chunk in the file
        if scratch is not None:
            # Has no name, so that nothing is left behind however the program ends.
            self._file = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115

    def append(self, chunk: Tensor) -> None:
        """Take the next columns [n, w]."""
        chunk = chunk.cpu()
        self.num_classes += chunk.shape[1]
        if self._file is None:
            self._chunks.append(chunk)
            return
        self._offsets.append((self._file.tell(), chunk.shape[1]))
        try:
            chunk.contiguous().numpy().tofile(self._file)
        except OSError as error:
            raise SaveError(
                f"The scratch file for class scores cannot be written: {error}."
            ) from None

    def probabilities(self, start: int, stop: int) -> Tensor:
        """[stop - start, c] float32, rows that sum to 1 or are 0."""
        if self._file is None:
            return to_probabilities(torch.cat([c[start:stop] for c in self._chunks], dim=1))
        parts = [self._read(*place, start, stop) for place in self._offsets]
        return to_probabilities(torch.from_numpy(np.concatenate(parts, axis=1)))

    def _read(self, offset: int, width: int, start: int, stop: int) -> np.ndarray:
        assert self._file is not None
        self._file.seek(offset + 4 * width * start)
        rows = np.fromfile(self._file, dtype=np.float32, count=(stop - start) * width)
        return rows.reshape(-1, width)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Give the scratch file back."""
        if self._file is not None:
            self._file.close()


def row_blocks(points: int, num_classes: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of blocks of rows small enough to hold all classes of."""
    rows = max(1, BLOCK_ENTRIES // num_classes)
    for start in range(0, points, rows):
        yield start, min(start + rows, points)
