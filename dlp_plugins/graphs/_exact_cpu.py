"""Exact search on a CPU: plain blocked products, each pair of points once.

A product of blocks costs 2 d operations a pair; choosing the k largest of the result costs as much
again, unless one comparison throws almost all of it away. So:

1. Guess. m random points give each point i a threshold t_i: the r-th largest of its m similarities.
   How many of all n points lie above it follows the negative hypergeometric law, about r n / m,
   whatever the data. m and r are set so that these are k at least, but for one point in 100.
2. Search. Points are put in ascending order of t. In a block of pairs i < j then t_i <= t_j, so the
   one comparison s_ij >= t_i finds every pair that either end can want: each pair is computed once.
   Where descriptors lie near few dimensions short vectors rule out most pairs (`_screen.py`).
3. Verify. A point with k pairs or more above its threshold has its k nearest among them. The few
   others are compared with every point. So are crowded ones, whose similarities tie by the hundred
   (thousands of duplicates, zero vectors): no threshold can thin them out.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.special import bdtrc

from dlp_plugins._threads import chunks, parallel, row_chunks
from dlp_plugins.graphs._kmeans import near_order
from dlp_plugins.graphs._top_k import Array, Pairs, nearest, restore_order
from dlp_plugins.graphs._upper_bound import ROUNDING, confirm, heads, screen

# Large enough that calls cost little, small enough that a block stays in the L3 cache.
ROWS, COLUMNS = 2048, 512
GUESS_ROWS = 256  # fewer, as the sample they are compared with is larger than a block is wide
BRUTE_ENTRIES = 2**23  # similarities that a thread holds when it compares with every point
GROUP = 8  # samples of which only the largest is kept; a larger group gives a looser threshold
MIN_SAMPLE = 512
# A larger sample, a tighter threshold, fewer pairs to look at. Of `FEW` neighbours, or k if that is
# more, so many are expected in the sample: fewer where a comparison with it costs all d numbers.
FEW = 32
SAMPLE_HITS, SAMPLE_HITS_SCREENED = 2, 4
ORDER_FROM = 32_768  # points; a graph of fewer is solved in cache whatever their order
FAIL = 0.01  # share of points whose threshold may be too high
TIE = 1e-6  # rounding of an inner product of unit vectors


def search(v: Array, k: int) -> tuple[Array, Array, Array | None]:
    """The k nearest others of each row of v [n, d] float32 by inner product, 0 < k < n.

    Returns:
        indices [n, k] int32 and similarities [n, k] float32, unordered within a row; of many points
        an order [n] int64 by nearness.
    """
    n = len(v)
    short = screen(v, k)
    near = heads(v, short)
    by_nearness = near_order(near) if n >= ORDER_FROM else None
    hits = SAMPLE_HITS if short is v else SAMPLE_HITS_SCREENED
    sample = max(MIN_SAMPLE, hits * n // max(k, FEW) // GROUP * GROUP)
    rank = _rank(n, k, sample)
    if 4 * sample > n or not rank:  # too few points for a sample to pay, or k a large part of them
        left: Array = np.arange(n)
        indices, similarities = np.empty((n, k), np.int32), np.empty((n, k), np.float32)
    else:
        threshold = _guess(near, rank, sample)
        order: Array = np.argsort(threshold).astype(np.int32)
        by_threshold = v[order]
        short = by_threshold if short is v else short[order]
        found = nearest(_pairs_above(by_threshold, short, threshold[order]), n, k)
        indices, similarities = restore_order(order, found.indices, found.similarities)
        left = order[found.counts < k]
    blocks = [left[rows] for rows in row_chunks(len(left), n, BRUTE_ENTRIES)]
    for block, best in zip(blocks, parallel(lambda b: _brute(v, b, k), blocks), strict=True):
        indices[block], similarities[block] = best
    return indices, similarities, by_nearness


def _guess(v: Array, rank: int, sample: int) -> Array:
    """[n] each point's rank-th largest similarity with a sample; infinite for a crowded one."""
    n = len(v)
    chosen = v[np.random.default_rng(0).choice(n, sample, replace=False)]
    crowd = min(4 * rank, sample // GROUP)

    def block(rows: slice) -> Array:
        s = v[rows] @ chosen.T
        largest = np.sort(s.reshape(len(s), GROUP, -1).max(axis=1), axis=1)
        crowded = largest[:, -crowd] > largest[:, -rank] - TIE
        return np.where(crowded, np.float32(np.inf), largest[:, -rank])

    return np.concatenate(list(parallel(block, chunks(n, GUESS_ROWS))))


def _rank(n: int, k: int, sample: int) -> int:
    """The least r such that above the r-th largest of a sample hardly ever lie fewer than k of n.

    That happens if r of the k + r - 1 largest are in the sample, about a binomial event. 0 if a
    sample of this size has no such r.
    """
    ranks = np.arange(1, sample // GROUP)
    safe = np.flatnonzero(bdtrc(ranks - 1, k + ranks - 1, sample / n) < FAIL)
    return int(ranks[safe[0]]) if len(safe) else 0


def _pairs_above(v: Array, short: Array, threshold: Array) -> Iterator[Pairs]:
    """Pairs (i, j) with s_ij >= t_i, in both directions; thresholds must ascend.

    short: vectors whose inner products are no less than those of v, or v itself.
    """
    n = len(v)
    screened = short is not v

    def panel(rows: slice) -> list[Pairs]:
        found = []
        space = np.empty(ROWS * COLUMNS, np.float32), np.empty(ROWS * COLUMNS, bool)
        limit = threshold[rows, None] - (ROUNDING if screened else np.float32(0))
        for start in range(rows.start, n, COLUMNS):
            others = slice(start, min(start + COLUMNS, n))
            shape = len(limit), others.stop - start
            s, wanted = (a[: shape[0] * shape[1]].reshape(shape) for a in space)
            np.matmul(short[rows], short[others].T, out=s)
            np.greater_equal(s, limit, out=wanted)
            if start < rows.stop:  # around the diagonal: each pair once, and no point with itself
                wanted = np.triu(wanted, rows.start - start + 1)
            at = np.flatnonzero(wanted)
            if screened:
                at, pairs = confirm(v[rows], v[others], at, threshold[rows])
            else:
                pairs = s.reshape(-1).take(at)
            i, j = np.divmod(at.astype(np.int32), np.int32(shape[1]))
            i += rows.start
            j += start
            back = np.flatnonzero(pairs >= threshold.take(j))
            found += [Pairs(i, j, pairs), Pairs(j.take(back), i.take(back), pairs.take(back))]
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
