"""From many candidate pairs, each point's k nearest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from dlp_plugins._threads import parallel, slices

Array = np.ndarray[Any, np.dtype[Any]]
BLOCK_ROWS = 1024  # points whose candidates are reduced at once


class Pairs(NamedTuple):
    """`cols[e]` may be a neighbour of `rows[e]`, at `similarities[e]`. No pair comes twice."""

    rows: Array
    cols: Array
    similarities: Array


class Nearest(NamedTuple):
    """Each point's k best candidates.

    indices: [n, k] int32, -1 where a point has fewer candidates.
    similarities: [n, k] float32, -inf there.
    counts: [n], the candidates that each point had.
    """

    indices: Array
    similarities: Array
    counts: Array

    def pairs(self) -> Pairs:
        """The same as pairs."""
        rows, columns = np.nonzero(self.indices >= 0)
        return Pairs(
            rows.astype(np.int32), self.indices[rows, columns], self.similarities[rows, columns]
        )


def nearest(
    found: Iterable[Pairs], n: int, k: int, share: Callable[..., Iterable[None]] = parallel
) -> Nearest:
    """Each of n points' k best candidates; `share=map` leaves the work to the calling thread."""
    rows, cols, values = _joined(found)
    if not len(rows):
        return Nearest(
            np.full((n, k), -1, np.int32),
            np.full((n, k), -np.inf, np.float32),
            np.zeros(n, np.int64),
        )
    import scipy.sparse as sp  # takes 0.2 s to load, and small sets do not come here

    candidates = sp.coo_matrix((values, (rows, cols)), shape=(n, np.iinfo(np.int32).max))
    candidates.has_canonical_format = True  # no pair comes twice, so SciPy need not sort them
    grouped = candidates.tocsr()
    del rows, cols, values, candidates  # gigabytes, for a million points
    count = np.diff(grouped.indptr)
    indices = np.empty((n, k), np.int32)
    similarities = np.empty((n, k), np.float32)

    def choose(rows: Array) -> None:
        width = max(k, count[rows[-1]])
        columns = np.arange(width, dtype=grouped.indptr.dtype)
        at = np.minimum(grouped.indptr[rows, None] + columns, len(grouped.data) - 1)
        s, j = grouped.data.take(at), grouped.indices.take(at)
        s[columns >= count[rows, None]] = -np.inf
        best = _pack(s, j)
        best.partition(width - k, axis=1)
        similarities[rows], indices[rows] = _unpack(best[:, -k:])

    by_count = np.argsort(count, kind="stable")  # points side by side then need the same width
    for _ in share(choose, (by_count[rows] for rows in slices(n, BLOCK_ROWS))):
        pass
    few = by_count[: np.searchsorted(count[by_count], k)]
    indices[few] = np.where(np.isneginf(similarities[few]), -1, indices[few])
    return Nearest(indices, similarities, count)


def _joined(found: Iterable[Pairs]) -> Iterator[Array]:
    """Rows, columns and similarities of all pairs; the parts of each are freed once joined."""
    parts = [*zip(*found, strict=True)][::-1]
    while parts:
        yield np.concatenate(parts.pop())


def _pack(similarities: Array, indices: Array) -> Array:
    """Similarities float32 and indices int32 as int64 of the same order.

    Finding the largest of these takes half the time of finding their places and fetching both.
    """
    key = similarities.view(np.int32).astype(np.int64)
    key ^= (key >> 63) & 0x7FFFFFFF  # else the bits of negative numbers would descend
    key <<= 32
    key |= indices
    return key


def _unpack(key: Array) -> tuple[Array, Array]:
    bits = (key >> 32).astype(np.int32)
    bits ^= (bits >> 31) & 0x7FFFFFFF
    return bits.view(np.float32), key.astype(np.int32)


def restore_order(order: Array, indices: Array, similarities: Array) -> tuple[Array, Array]:
    """Neighbours among v[order], turned into neighbours among v."""
    original_indices, original_similarities = np.empty_like(indices), np.empty_like(similarities)
    original_indices[order] = np.where(indices < 0, -1, order[indices])
    original_similarities[order] = similarities
    return original_indices, original_similarities
