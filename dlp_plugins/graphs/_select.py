"""From many candidate pairs, each point's k nearest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from dlp_plugins.graphs._threads import chunks, parallel

Array = np.ndarray[Any, np.dtype[Any]]
ROWS = 256  # points chosen for at once by a thread


class Pairs(NamedTuple):
    """`cols[e]` may be a neighbour of `rows[e]`, at `similarities[e]`. No pair comes twice."""

    rows: Array
    cols: Array
    similarities: Array


def nearest(found: Iterable[Pairs], n: int, k: int) -> tuple[Array, Array, Array]:
    """Each point's k best candidates.

    Returns:
        indices [n, k] int32, -1 where a point has fewer candidates; similarities [n, k] float32,
        -inf there; count [n], the candidates that each point had.
    """
    rows, cols, values = (np.concatenate(part) for part in zip(*found, strict=True))
    if not len(rows):
        return (
            np.full((n, k), -1, np.int32),
            np.full((n, k), -np.inf, np.float32),
            np.zeros(n, np.int64),
        )
    candidates = sp.coo_matrix((values, (rows, cols)), shape=(n, n))
    candidates.has_canonical_format = True  # no pair comes twice; saying so spares a sort
    grouped = candidates.tocsr()
    del rows, cols, values, candidates  # gigabytes, for a million points
    count = np.diff(grouped.indptr)
    indices = np.empty((n, k), np.int32)
    similarities = np.empty((n, k), np.float32)

    def choose(rows: Array) -> None:
        counts = count[rows, None]
        columns = np.arange(max(k, counts[-1, 0]))
        filled = columns < counts
        at = np.where(filled, grouped.indptr[rows, None] + columns, 0)
        s = np.where(filled, grouped.data[at], np.float32(-np.inf))
        j = np.where(filled, grouped.indices[at], np.int32(-1))
        top = np.argpartition(s, -k, axis=1)[:, -k:]
        similarities[rows] = np.take_along_axis(s, top, axis=1)
        indices[rows] = np.take_along_axis(j, top, axis=1)

    by_count = np.argsort(count, kind="stable")  # points side by side then need the same width
    for _ in parallel(choose, (by_count[rows] for rows in chunks(n, ROWS))):
        pass
    return indices, similarities, count


def restore_order(order: Array, indices: Array, similarities: Array) -> tuple[Array, Array]:
    """Neighbours among v[order], turned into neighbours among v."""
    original_indices, original_similarities = np.empty_like(indices), np.empty_like(similarities)
    original_indices[order] = np.where(indices < 0, -1, order[indices])
    original_similarities[order] = similarities
    return original_indices, original_similarities
