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
    """Candidates: `cols[e]` may be a neighbour of `rows[e]`, at `similarities[e]`. No pair twice."""

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
    candidates = sp.coo_matrix((values, (rows, cols)), shape=(n, n))
    candidates.has_canonical_format = True  # no pair comes twice; saying so spares a sort
    grouped = candidates.tocsr()
    count = np.diff(grouped.indptr)
    indices = np.empty((n, k), np.int32)
    similarities = np.empty((n, k), np.float32)

    def choose(rows: slice) -> None:
        counts = count[rows]
        width = max(k, int(counts.max()))
        filled = np.arange(width) < counts[:, None]
        span = slice(grouped.indptr[rows.start], grouped.indptr[rows.stop])
        s = np.full(filled.shape, -np.inf, np.float32)
        s[filled] = grouped.data[span]
        j = np.full(filled.shape, -1, np.int32)
        j[filled] = grouped.indices[span]
        top = np.argpartition(s, width - k, axis=1)[:, width - k :]
        similarities[rows] = np.take_along_axis(s, top, axis=1)
        indices[rows] = np.take_along_axis(j, top, axis=1)

    for _ in parallel(choose, chunks(n, ROWS)):
        pass
    return indices, similarities, count


def restore_order(order: Array, indices: Array, similarities: Array) -> tuple[Array, Array]:
    """Neighbours among v[order], turned into neighbours among v."""
    original_indices, original_similarities = np.empty_like(indices), np.empty_like(similarities)
    original_indices[order] = np.where(indices < 0, -1, order[indices])
    original_similarities[order] = similarities
    return original_indices, original_similarities
