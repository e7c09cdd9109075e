"""Exact search on a CPU: plain blocked products, each pair of points once.

A product of blocks costs 2 d operations per pair; choosing the k largest of the result costs as
much again, unless one comparison discards almost all of it. So:

1. Guess. m random points give each point i a threshold t_i: the r-th largest of its m similarities.
   How many of all n points lie above it follows the negative hypergeometric law, about r n / m,
   whatever the data. m and r are set so that at least k do, but for one point in 100.
2. Search. Points are put in ascending order of t. In a block of pairs i < j then t_i <= t_j, so the
   one comparison s_ij >= t_i finds every pair that either end can want: each pair is computed once.
   Vectors of 8 bits (`_eight_bits.py`) or, where descriptors lie near few dimensions, short ones
   (`_upper_bound.py`) rule out most pairs where that is cheapest.
3. Verify. A point with at least k pairs above its threshold has its k nearest among them. The few
   others are compared with every point. So are crowded ones, of which hundreds of similarities tie
   (thousands of duplicates, zero vectors): no threshold can thin those out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from dlp_plugins._threads import length, parallel, row_slices, slices
from dlp_plugins.graphs._choice import choose
from dlp_plugins.graphs._compared import Compared, Whole
from dlp_plugins.graphs._kmeans import order_by_nearness
from dlp_plugins.graphs._top_k import Array, Nearest, Pairs, nearest, restore_order
from dlp_plugins.graphs._upper_bound import ShortVectors, confirm
from dlp_plugins.processes.group import ALONE, Processes

# A block of pairs: large enough that calls cost little, small enough to stay in the L3 cache.
BLOCK_ROWS, BLOCK_COLUMNS = 2048, 512
GUESS_ROWS = 256  # points compared with the sample at once; the sample is wider than a block
ALL_PAIRS_ENTRIES = 2**22  # similarities that one thread holds in comparing with every point
SAMPLE_GROUP = 8  # samples of which only the largest is kept; more give a looser threshold
MIN_SAMPLE_POINTS = 512
# A larger sample gives a tighter threshold and so fewer pairs to compare in full. It is sized so
# that this many of a point's max(k, MIN_SAMPLED_K) nearest are expected in it: fewer where a
# comparison with the sample costs all d numbers.
SAMPLE_HITS, SAMPLE_HITS_SHORT = 2, 4
MIN_SAMPLED_K = 32
MIN_ORDERED_POINTS = 32_768  # a graph of fewer is solved in cache whatever their order
FAIL_RATE = 0.01  # share of points whose threshold may be too high
TIE_TOLERANCE = 1e-6  # rounding of an inner product of unit vectors


def search(v: Array, k: int, processes: Processes = ALONE) -> tuple[Array, Array, Array | None]:
    """The k nearest others of each row of v [n, d] float32 by inner product, 0 < k < n.

    processes: each takes its share of the blocks of pairs; all get all.

    Returns:
        indices [n, k] int32 and similarities [n, k] float32, unordered within a row; from
        `MIN_ORDERED_POINTS` points on an order [n] int64 by nearness.
    """
    n = len(v)
    sample = _sample_size(n, k, SAMPLE_HITS_SHORT)
    rank = _rank(n, k, sample)
    compared = choose(v, k, n * n / 2, rank * n / sample if rank else None, processes)
    if isinstance(compared, Whole):
        sample = _sample_size(n, k, SAMPLE_HITS)
        rank = _rank(n, k, sample)
    near = compared.heads if isinstance(compared, ShortVectors) else v
    by_nearness = order_by_nearness(near) if n >= MIN_ORDERED_POINTS else None
    if not rank:  # too few points for a sample to pay, or k a large part of them
        left: Array = np.arange(n)
        indices, similarities = np.empty((n, k), np.int32), np.empty((n, k), np.float32)
    else:
        threshold = _guess(compared.estimating(), rank, sample, processes)
        order: Array = np.argsort(threshold).astype(np.int32)
        compared = compared.rows(order)  # the other order is not needed any more
        above = _nearest_above(v, compared, order, threshold[order], k, processes)
        del compared
        found = _joined(above, k, processes)
        indices, similarities = restore_order(order, found.indices, found.similarities)
        left = order[found.counts < k]
    blocks = [left[rows] for rows in row_slices(len(left), n, ALL_PAIRS_ENTRIES)]
    mine, counts = processes.share_blocks(blocks, len)
    for block, best in zip(mine, parallel(lambda b: _all_pairs(v, b, k), mine), strict=True):
        indices[block], similarities[block] = best
    if blocks and not processes.alone:
        own = np.concatenate(mine) if mine else None
        for found_here in (indices, similarities):
            found_here[left] = _gathered(
                None if own is None else found_here[own], counts, processes
            )
    return indices, similarities, by_nearness


def _gathered(own: Array | None, counts: Sequence[int], processes: Processes) -> Array:
    part = None if own is None else torch.from_numpy(own)
    return processes.gather_rows(part, counts).numpy()


def _joined(found: Nearest, k: int, processes: Processes) -> Nearest:
    """The k best of what all processes found, which have no pair in common."""
    if processes.alone:
        return found
    n = len(found.counts)
    lists = [_gathered(a, [n] * processes.size, processes) for a in found]
    parts = [
        Nearest(*part) for part in zip(*(np.split(a, processes.size) for a in lists), strict=True)
    ]
    best = nearest((part.pairs() for part in parts), n, k)
    return best._replace(counts=np.sum([part.counts for part in parts], axis=0))


def _guess(v: Compared, rank: int, sample: int, processes: Processes = ALONE) -> Array:
    """[n] each point's rank-th largest similarity with a sample; infinite for a crowded one."""
    n = len(v)
    chosen = v.rows(np.random.default_rng(0).choice(n, sample, replace=False))
    crowd = min(4 * rank, sample // SAMPLE_GROUP)

    def block(rows: slice) -> Array:
        some = v.rows(rows)
        s = some.products(chosen)
        largest = np.sort(s.reshape(len(s), SAMPLE_GROUP, -1).max(axis=1), axis=1)
        ends = some.similarities(largest[:, [-crowd, -rank]])
        crowded = ends[:, 0] > ends[:, 1] - TIE_TOLERANCE
        return np.where(crowded, np.float32(np.inf), ends[:, 1])

    mine, counts = processes.share_blocks(list(slices(n, GUESS_ROWS)), length)
    found = list(parallel(block, mine))
    return _gathered(np.concatenate(found) if found else None, counts, processes)


def _sample_size(n: int, k: int, hits: int) -> int:
    """Points of a sample in which so many of a point's nearest are expected."""
    size = hits * n // max(k, MIN_SAMPLED_K) // SAMPLE_GROUP * SAMPLE_GROUP
    return max(MIN_SAMPLE_POINTS, size)


def _rank(n: int, k: int, sample: int) -> int:
    """The least r such that above the r-th largest of a sample hardly ever lie fewer than k of n.

    That happens if r of the k + r - 1 largest are in the sample, about a binomial event. 0 if a
    sample of this size has no such r, or is too large a part of the points to pay.
    """
    if 4 * sample > n:
        return 0
    from scipy.special import bdtrc  # takes 0.1 s to load, and small sets do not need it

    ranks = np.arange(1, sample // SAMPLE_GROUP)
    safe = np.flatnonzero(bdtrc(ranks - 1, k + ranks - 1, sample / n) < FAIL_RATE)
    return int(ranks[safe[0]]) if len(safe) else 0


def _nearest_above(
    v: Array,
    compared: Compared,
    order: Array,
    threshold: Array,
    k: int,
    processes: Processes = ALONE,
) -> Nearest:
    """The k nearest of v[order] among pairs (i, j) with s_ij >= t_i; thresholds must ascend.

    Panels of rows are searched in order, each against itself and all that come after, so that the
    candidates of a panel are complete, and cut to k, as soon as it is searched. Of several
    processes each searches its own panels, whose lengths descend.
    """
    n = len(v)
    whole = isinstance(compared, Whole)

    def search_panel(rows: slice) -> list[tuple[int, Pairs]]:
        """Pairs by the panel of their rows, which count from its first."""
        found = []
        size = BLOCK_ROWS * BLOCK_COLUMNS
        space = np.empty(size, compared.dtype), np.empty(size, bool)
        mine, own = compared.rows(rows), v[order[rows]]
        limit = mine.limits(threshold[rows])[:, None]
        for start in range(rows.start, n, BLOCK_COLUMNS):
            others = slice(start, min(start + BLOCK_COLUMNS, n))
            shape = len(limit), others.stop - start
            s, wanted = (a[: shape[0] * shape[1]].reshape(shape) for a in space)
            mine.products(compared.rows(others), out=s)
            np.greater_equal(s, limit, out=wanted)
            if start < rows.stop:  # around the diagonal: each pair once, and no point with itself
                wanted = np.triu(wanted, rows.start - start + 1)
            at = np.flatnonzero(wanted)
            if whole:
                pairs = s.reshape(-1).take(at)
            else:
                at, pairs = confirm(own, v[order[others]], at, threshold[rows])
            i, j = np.divmod(at.astype(np.int32), np.int32(shape[1]))
            panel = start // BLOCK_ROWS  # a block of columns lies in one
            back = np.flatnonzero(pairs >= threshold[others].take(j))
            found.append((rows.start // BLOCK_ROWS, Pairs(i, j + start, pairs)))
            j = j.take(back) + (start - panel * BLOCK_ROWS)
            found.append((panel, Pairs(j, i.take(back) + rows.start, pairs.take(back))))
        return found

    best = Nearest(
        np.full((n, k), -1, np.int32),
        np.full((n, k), -np.inf, np.float32),
        np.zeros(n, np.int64),
    )
    panels = list(slices(int(np.searchsorted(threshold, np.inf)), BLOCK_ROWS))
    searched = parallel(search_panel, panels[processes.rank :: processes.size])
    waiting: list[list[Pairs]] = [[] for _ in panels]
    for number, rows in enumerate(panels):
        if number % processes.size == processes.rank:
            for panel, pairs in next(searched):
                if len(pairs.rows):  # else it may be a crowded point's panel
                    waiting[panel].append(pairs)
        if waiting[number]:
            some = nearest(waiting[number], length(rows), k, map)
            for every, part in zip(best, some, strict=True):
                every[rows] = part
        waiting[number] = []
    return best


def _all_pairs(v: Array, rows: Array, k: int) -> tuple[Array, Array]:
    """The k nearest others of the points `rows`, from all n similarities of each."""
    s = v[rows] @ v.T
    s[np.arange(len(rows)), rows] = -np.inf  # a point is not its own neighbour
    top = np.argpartition(s, -k, axis=1)[:, -k:]
    return top, np.take_along_axis(s, top, axis=1)
