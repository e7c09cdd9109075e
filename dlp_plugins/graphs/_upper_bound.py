"""Short vectors whose inner products bound those of the descriptors from above.

Descriptors lie near few dimensions. Turned onto their principal axes, each is a head h of few
numbers and a tail t of many small ones, and by the Cauchy-Schwarz inequality, for any two points,

    v_i . v_j = h_i . h_j + t_i . t_j <= h_i . h_j + |t_i| |t_j| = [h_i, |t_i|] . [h_j, |t_j|].

So a product of short vectors rules out almost all pairs; only the others need all their numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from dlp_plugins._threads import parallel, slices
from dlp_plugins.graphs._top_k import Array, Pairs

ROUNDING = np.float32(1e-5)  # error of vectors turned in float32 and of their products
SAMPLE_POINTS = 4096  # near pairs that show how alike tails are; points that one thread shortens
MIN_POINTS = 2 * SAMPLE_POINTS  # fewer are not worth the axes
# Points that the axes and the length of the heads are chosen on. With fewer than one in four the
# k-th similarity of a sample says too little of the k-th of all.
MAX_CHOICE_POINTS = 2**14
SAMPLE_QUERIES = 128  # of these, points whose neighbours show how many pairs a length rules out
MISS_RATE = 1e-3  # share of near pairs that a scaled bound may lose: a hundredth of what cells miss
# Costs in multiples of one multiplication of a product (docs/performance.md, "Graph").
READ_COST = 25  # of reading one entry of a product, whatever the length of its vectors
GATHER_COST = 15  # of one number of a pair that is compared in full
PAIR_COST = 500  # of finding such a pair and of keeping it
CANDIDATES_PER_K = 2.5  # candidates that a search keeps per neighbour


@dataclass(frozen=True)
class ShortVectors:
    """Short vectors [h_i, |t_i|] of n points.

    values: [n, h + 1] float32; their inner products are no less than those of the descriptors.
    """

    values: Array

    @property
    def heads(self) -> Array:
        """[n, h]: without the norms of the tails, so that products are near the similarities."""
        return np.ascontiguousarray(self.values[:, :-1])


def short_vectors(v: Array, k: int, candidates: float | None = None) -> ShortVectors | None:
    """Short vectors of v [n, d] float32; None where they would rule out too few pairs to pay.

    How many pairs each length would rule out is estimated on a sample.

    Args:
        candidates: how many others of each point reach its threshold in the search; by default
            `CANDIDATES_PER_K` k.
    """
    n, d = v.shape
    if n < max(8 * d, MIN_POINTS, 8 * k):  # too few points for the axes to pay
        return None
    candidates = CANDIDATES_PER_K * k if candidates is None else candidates
    random = np.random.default_rng(0)
    points = min(n // 2, MAX_CHOICE_POINTS)
    sample = v[random.choice(n, points, replace=False)]
    axes = np.linalg.eigh(sample.T @ sample)[1][:, ::-1]
    similarities = sample[:SAMPLE_QUERIES] @ sample.T
    rank = max(1, round(candidates / n * points)) + 1  # and the query itself
    threshold = np.partition(similarities, -rank, axis=1)[:, -rank, None]

    best_head, best_cost = 0, float(d + READ_COST)
    for head in (d // 8, d // 4, d // 2):
        short = _shorten(sample, axes, head)
        left = np.mean(short[:SAMPLE_QUERIES] @ short.T >= threshold)
        # twice: a pair is compared in full if it may be near enough for either end
        cost = head + 1 + READ_COST + 2 * left * (PAIR_COST + GATHER_COST * d)
        if cost < best_cost:
            best_head, best_cost = head, cost
    if best_head == 0:
        return None
    rows = parallel(lambda rows: _shorten(v[rows], axes, best_head), slices(n, SAMPLE_POINTS))
    return ShortVectors(np.concatenate(list(rows)))


def _shorten(v: Array, axes: Array, head: int) -> Array:
    turned = v @ axes
    tail = np.linalg.norm(turned[:, head:], axis=1, keepdims=True)
    return np.concatenate([turned[:, :head], tail], axis=1)


def tail_share(queries: Array, short: Array, pairs: Pairs) -> float:
    """The share of |t_i| |t_j| that t_i . t_j stays below in all but `MISS_RATE` of known pairs.

    Tails of near points are hardly alike. A search that may miss a few pairs multiplies the tails
    of one end by this share and so avoids most of the full comparisons that find nothing.

    Args:
        queries: [m, h + 1] values of short vectors, of the points that pairs.rows counts.
        short: [n, h + 1], of the points that pairs.cols counts.
        pairs: near pairs with their similarities.
    """
    some = slice(None, None, max(1, len(pairs.rows) // SAMPLE_POINTS))
    one, other = queries[pairs.rows[some]], short[pairs.cols[some]]
    similarities = pairs.similarities[some]
    bound = one[:, -1] * other[:, -1]
    tails = similarities - np.einsum("ij,ij->i", one[:, :-1], other[:, :-1])
    known = (similarities < 1 - ROUNDING) & (bound > ROUNDING)  # not a point with itself
    if not known.any():
        return 1.0
    return float(np.quantile(tails[known] / bound[known], 1 - MISS_RATE).clip(0, 1))


def confirm(a: Array, b: Array, at: Array, bound: Array) -> tuple[Array, Array]:
    """Which entries of a b^T reach the bound of their row, of those at the flat positions `at`.

    Args:
        a: [m, d]; b: [n, d].
        at: ascending positions in a b^T, counted along its rows.
        bound: [m].

    Returns:
        The positions that reach it, and the entries there.
    """
    row_starts = np.searchsorted(at, np.arange(len(a) + 1) * len(b))
    similarities = products_at(a, b, row_starts, at % len(b))
    above = np.flatnonzero(similarities >= bound.take(at // len(b)))
    return at.take(above), similarities.take(above)


def products_at(a: Array, b: Array, row_starts: Array, cols: Array) -> Array:
    """Entries of a b^T: in row i at the columns cols[row_starts[i] : row_starts[i + 1]]."""
    wanted = torch.sparse_csr_tensor(
        torch.from_numpy(row_starts), torch.from_numpy(cols), torch.zeros(len(cols)),
        (len(a), len(b)), check_invariants=False,
    )  # fmt: skip
    left, right = torch.from_numpy(a), torch.from_numpy(b)
    return torch.sparse.sampled_addmm(wanted, left, right.T, beta=0.0).values().numpy()
