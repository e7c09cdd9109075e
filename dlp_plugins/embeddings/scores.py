"""Scores [n, c] that arrive by columns and are read by rows, on disk where memory is short."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

import numpy as np
import torch
from torch import Tensor

from dlp_plugins._threads import row_slices
from dlp_plugins.errors import SaveError
from dlp_plugins.normalizers.contract import Normalizer
from dlp_plugins.propagation._outputs import checked
from dlp_plugins.refiners.contract import Empty

BLOCK_ENTRIES = 2**22  # probabilities of a block of rows held at once: 16 MiB


class Scores:
    """Scores [n, c]: columns arrive a chunk at a time, rows are read a block at a time."""

    def __init__(self, scratch: Path | None) -> None:
        self.num_classes = 0
        self._chunks: list[Tensor] = []
        self._file: IO[bytes] | None = None
        self._offsets: list[tuple[int, int]] = []  # byte offset in the file and width of each chunk
        if scratch is not None:
            # Has no name, so that nothing is left behind however the program ends.
            try:
                self._file = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115
            except OSError as error:
                raise SaveError(
                    f"The scratch file for class scores cannot be made in {scratch}: "
                    f"{error.strerror}."
                ) from error

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

    def rows(self, rows: slice | Tensor) -> Tensor:
        """Z [b, c] float32 of those rows, a slice or [b] int64, all classes."""
        if self._file is None:
            return torch.cat([chunk[rows] for chunk in self._chunks], dim=1)
        parts = [self._read(*place, rows) for place in self._offsets]
        return torch.from_numpy(np.concatenate(parts, axis=1))

    def blocks(self, points: int) -> Iterator[slice]:
        """0..points in slices of rows small enough to hold all classes of."""
        return row_slices(points, self.num_classes, BLOCK_ENTRIES)

    def _read(self, offset: int, width: int, rows: slice | Tensor) -> np.ndarray:
        assert self._file is not None
        if isinstance(rows, Tensor):
            if len(rows) == 0:
                return np.empty((0, width), np.float32)
            shape = (int(rows.max()) + 1, width)
            return np.memmap(self._file, np.float32, "r", offset, shape)[rows.numpy()]
        self._file.seek(offset + 4 * width * rows.start)
        count = (rows.stop - rows.start) * width
        return np.fromfile(self._file, dtype=np.float32, count=count).reshape(-1, width)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Give memory and the scratch file back."""
        self._chunks.clear()
        if self._file is not None:
            self._file.close()


@dataclass(frozen=True)
class Probabilities:
    """Class probabilities [n, c], a block of rows at a time.

    rows: P [b, c] float32 of some rows, a slice or [b] int64; each sums to 1 or is 0.
    close: gives memory or a scratch file back.
    """

    points: int
    num_classes: int
    rows: Callable[[slice | Tensor], Tensor]
    close: Callable[[], None] = lambda: None

    @classmethod
    def of(
        cls, scores: Scores, normalizer: Normalizer, unlabeled: Tensor, shares: Tensor
    ) -> Probabilities:
        """Of scores, computed whenever they are read, after the normalizer's passes over all.

        Args:
            unlabeled: [n] bool.
            shares: pi [c] float32, as the normalizer takes them.
        """
        points = len(unlabeled)

        def blocks() -> Iterator[tuple[Tensor, Tensor]]:
            for rows in scores.blocks(points):
                yield scores.rows(rows), unlabeled[rows]

        total = normalizer.fit(blocks, shares)

        def rows(at: slice | Tensor) -> Tensor:
            z = scores.rows(at)
            found = normalizer.apply(z, total, shares)
            return checked(found, normalizer, "probabilities", tuple(z.shape), low=0)

        return cls(points, scores.num_classes, rows, scores.close)

    @classmethod
    def held(cls, p: Tensor) -> Probabilities:
        """Those of a tensor [n, c]."""
        return cls(p.shape[0], p.shape[1], p.__getitem__)

    def repeated(self, group: Tensor) -> Probabilities:
        """Row group[i] for point i: of points of which several share a row."""
        return Probabilities(
            len(group), self.num_classes, lambda at: self.rows(group[at]), self.close
        )

    def blocks(self) -> Iterator[slice]:
        """All rows, in slices small enough to hold all classes of."""
        return row_slices(self.points, self.num_classes, BLOCK_ENTRIES)

    def all(self, empty: Empty | None = None) -> Tensor:
        """P [n, c], all at once; `empty` makes the array, by default in memory."""
        p = (empty or torch.empty)((self.points, self.num_classes), device=torch.device("cpu"))
        for rows in self.blocks():
            p[rows] = self.rows(rows)
        return p

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
