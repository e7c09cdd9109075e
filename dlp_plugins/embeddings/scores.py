"""Scores [n, c] that arrive by columns and are read by rows, on disk where memory is short."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

import numpy as np
import torch
from torch import Tensor

from dlp_plugins._threads import row_slices
from dlp_plugins.errors import SaveError
from dlp_plugins.normalizers.contract import Normalizer, total_statistics
from dlp_plugins.propagation._outputs import checked

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

    def rows(self, rows: slice) -> Tensor:
        """Z [b, c] float32 of those rows, all classes."""
        if self._file is None:
            return torch.cat([chunk[rows] for chunk in self._chunks], dim=1)
        parts = [self._read(*place, rows) for place in self._offsets]
        return torch.from_numpy(np.concatenate(parts, axis=1))

    def blocks(self, points: int) -> Iterator[slice]:
        """0..points in slices of rows small enough to hold all classes of."""
        return row_slices(points, self.num_classes, BLOCK_ENTRIES)

    def _read(self, offset: int, width: int, rows: slice) -> np.ndarray:
        assert self._file is not None
        self._file.seek(offset + 4 * width * rows.start)
        count = (rows.stop - rows.start) * width
        return np.fromfile(self._file, dtype=np.float32, count=count).reshape(-1, width)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Give the scratch file back."""
        if self._file is not None:
            self._file.close()


@dataclass(frozen=True)
class Probabilities:
    """Class probabilities [n, c] of scores, a block of rows at a time.

    total: what the normalizer's first pass found.
    shares: pi [c] float32, as the normalizer takes them.
    """

    scores: Scores
    points: int
    normalizer: Normalizer
    total: Tensor | None
    shares: Tensor

    @classmethod
    def of(
        cls, scores: Scores, normalizer: Normalizer, unlabeled: Tensor, shares: Tensor
    ) -> Probabilities:
        """After the normalizer's first pass over all rows; `unlabeled` [n] bool."""
        points = len(unlabeled)
        blocks = ((scores.rows(rows), unlabeled[rows]) for rows in scores.blocks(points))
        return cls(scores, points, normalizer, total_statistics(normalizer, blocks), shares)

    def blocks(self) -> Iterator[slice]:
        """All rows, in slices small enough to hold all classes of."""
        return self.scores.blocks(self.points)

    def rows(self, rows: slice) -> Tensor:
        """P [b, c] float32 of those rows; each sums to 1 or is 0."""
        scores = self.scores.rows(rows)
        found = self.normalizer.apply(scores, self.total, self.shares)
        return checked(found, self.normalizer, "probabilities", tuple(scores.shape), low=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Give the scratch file back."""
        self.scores.__exit__(*error)
