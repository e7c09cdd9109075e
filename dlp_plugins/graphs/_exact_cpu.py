"""Exact search on a CPU: plain blocked products, each pair of points once.

A product of blocks costs 2 d operations a pair; choosing the k largest of the result costs as much
again, unless one comparison throws almost all of it away. So:

1. Guess. m random points give each point i a threshold t_i: the r-th largest of its m similarities.
   How many of all n points lie above it follows the negative hypergeometric law, about r n / m,
   whatever the data. m and r are set so that these are k at least, but for one point in 200 or so.
2. Search. Points are put in ascending order of t. In a block of pairs i < j then t_i <= t_j, so the
   one comparison s_ij >= t_i finds every pair that either end can want: each pair is computed once.
3. Verify. A point with k pairs or more above its threshold has its k nearest among them. The few
   others are compared with every point. So are crowded ones, whose similarities tie by the hundred
   (thousands of duplicates, zero vectors): no threshold can thin them out.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dlp_plugins.graphs._select import Array, Pairs, nearest, restore_order
from dlp_plugins.graphs._threads import chunks, parallel

# A block of 1024 x 512 similarities (2 MiB) and its ends (0.75 MiB at d = 128) stay in the cache.
ROWS, COLUMNS = 1024, 512
BRUTE_ENTRIES = 2**23  # similarities that a thread holds when it compares with every point
GROUP = 8  # samples of which only the largest is kept; a larger group gives a looser threshold
SAMPLE_HITS = 2.0  # of the k nearest, how many to expect in the sample
MIN_SAMPLE = 896
TIE = 1e-6  # rounding of an inner product of unit vectors


def search(v: Array, k: int) -> tuple[Array, Array]:
    """The k nearest others of each row of v [n, d] float32 by inner product, 0 < k < n.

    Returns:
        indices [n, k] int32 and similarities [n, k] float32, unordered within a row.
    """
    n = len(v)
    sample = max(MIN_SAMPLE, int(SAMPLE_HITS * n / k) // GROUP * GROUP)
    if 4 * sample > n:  # too few points for a sample to pay
        left: Array = np.arange(n)
        indices, similarities = np.empty((n, k), np.int32), np.empty((n, k), np.float32)
    else:
        threshold = _guess(v, k, sample)
        order: Array = np.argsort(threshold).astype(np.int32)
        *found, count = nearest(_pairs_above(v[order], threshold[order]), n, k)
        indices, similarities = restore_order(order, *found)
        left = order[count < k]
    blocks = [left[rows] for rows in chunks(len(left), max(1, BRUTE_ENTRIES // n))]
    for block, best in zip(blocks, parallel(lambda b: _brute(v, b, k), blocks), strict=True):
        indices[block], similarities[block] = best
    return indices, similarities


def _guess(v: Array, k: int, sample: int) -> Array:
    """[n] the threshold of each point; infinite for a crowded one."""
    n = len(v)
    chosen = v[np.random.default_rng(0).choice(n, sample, replace=False)]
    hits = k * sample / n
    rank = int(np.ceil(hits + 3 * np.sqrt(hits)))
    crowd = min(4 * rank, sample // GROUP)

    def block(rows: slice) -> Array:
        s = v[rows] @ chosen.T
        largest = np.sort(s.reshape(len(s), GROUP, -1).max(axis=1), axis=1)
        crowded = largest[:, -crowd] > largest[:, -rank] - TIE
        return np.where(crowded, np.float32(np.inf), largest[:, -rank])

    return np.concatenate(list(parallel(block, chunks(n, ROWS))))


def _pairs_above(v: Array, threshold: Array) -> Iterator[Pairs]:
    """Pairs (i, j) with s_ij >= t_i, in both directions; thresholds must ascend."""
    n = len(v)

    def panel(rows: slice) -> list[Pairs]:
        found = []
        space = np.empty(ROWS * COLUMNS, np.float32), np.empty(ROWS * COLUMNS, bool)
        limit = threshold[rows, None]
        for start in range(rows.start, n, COLUMNS):
            others = v[start : start + COLUMNS]
            shape = len(limit), len(others)
            s, wanted = (a[: len(limit) * len(others)].reshape(shape) for a in space)
            np.matmul(v[rows], others.T, out=s)
            np.greater_equal(s, limit, out=wanted)
            if start < rows.stop:  # around the diagonal: each pair once, and no point with itself
                wanted = np.triu(wanted, rows.start - start + 1)
            at = np.flatnonzero(wanted)
            i, j = np.divmod(at.astype(np.int32), np.int32(len(others)))
            i += rows.start
            j += start
            pairs = s.reshape(-1)[at]
            back = pairs >= threshold[j]
            found += [Pairs(i, j, pairs), Pairs(j[back], i[back], pairs[back])]
        return found

    finite = int(np.searchsorted(threshold, np.inf))
    yield Pairs(*(np.empty(0, t) for t in (np.int32, np.int32, np.float32)))  # if all are crowded
    for panels in parallel(panel, chunks(finite, ROWS)):
        yield from panels


def _brute(v: Array, rows: Array, k: int) -> tuple[Array, Array]:
    """The k nearest others of the points `rows`, from all n similarities of each."""
    s = v[rows] @ v.T
    s[np.arange(len(rows)), rows] = -np.inf  # a point is not its own neighbour
    top = np.argpartition(s, -k, axis=1)[:, -k:]
    return top, np.take_along_axis(s, top, axis=1)
