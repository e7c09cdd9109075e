"""Which vectors a search compares: whole descriptors, short ones, or ones of 8 bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from dlp_plugins.graphs import _eight_bits
from dlp_plugins.graphs._compared import Compared, Whole
from dlp_plugins.graphs._top_k import Array, Pairs
from dlp_plugins.graphs._upper_bound import lacking_share, principal_axes, shorten

MIN_SHORT_POINTS = 2**13  # fewer are not worth the axes
MIN_ROUNDED_POINTS = 2**12
MIN_WIDE = 384  # numbers from which on a sample is smaller, and a part of them may do
MAX_AXES_POINTS = 2**12  # points that span the leading axes
# Points that the choice is made on. With fewer than one in four the k-th similarity of a sample
# says too little of the k-th of all.
MAX_CHOICE_POINTS = 2**14
SAMPLE_QUERIES = 128  # of these, points whose neighbours show how many pairs are left
# Costs in multiples of one multiplication of a product of float32 (docs/performance_notes.md).
READ_COST = 25  # of reading one entry of a product, whatever the length of its vectors
ROUNDED_COST = 0.25  # of one multiplication of 8 bits
SUM_COST = 10  # of adding to an entry what rounding may have taken from it
GATHER_COST = 7  # of one number of a pair that is compared in full
PAIR_COST = 1000  # of finding such a pair and of keeping it
EIGENVECTOR_COST = 10  # of d^3 multiplications
CANDIDATES_PER_K = 2.5  # candidates that a search keeps per neighbour


@dataclass(frozen=True)
class Trial:
    """A sample of points, and the bound that those near enough to a query reach.

    points: [m, d]; the first `SAMPLE_QUERIES` are the queries.
    similarities: [queries, m] float32.
    bound: [queries] float32.
    """

    points: Array
    similarities: Array
    bound: Array

    def cost(
        self, product: float, compared: Compared | None = None, may_miss: bool = False
    ) -> float:
        """Of a pair: its product, and the share of full comparisons that it leaves.

        compared: the points as this search would have them; None for as few left as can be.
        may_miss: whether the search narrows the bound to what known pairs stay below.
        """
        reached = self.similarities >= self.bound[:, None]
        left = reached.mean()
        if compared is not None:
            queries, others = compared.rows(slice(SAMPLE_QUERIES)), compared
            if may_miss:
                rows, cols = np.nonzero(reached)
                known = Pairs(rows, cols, self.similarities[rows, cols])
                queries, others = queries.narrowed(others, lacking_share(queries, others, known))
            left = np.mean(queries.products(others) >= queries.limits(self.bound)[:, None])
        # twice: a pair is compared in full if it may be near enough for either end
        full = PAIR_COST + GATHER_COST * self.points.shape[1]
        return product + READ_COST + (1 if may_miss else 2) * float(left) * full


def choose(
    v: Array, k: int, pairs: float, candidates: float | None = None, may_miss: bool = False
) -> Compared:
    """What to compare v [n, d] float32 by: the cheapest, by a trial on a sample.

    Args:
        pairs: how many pairs the search compares, over which the costs of axes are spread.
        candidates: how many others of each point reach its threshold in the search; by default
            `CANDIDATES_PER_K` k.
        may_miss: whether the search may miss a few of the wanted pairs.
    """
    n, d = v.shape
    eight_bits = _eight_bits.available() and n >= MIN_ROUNDED_POINTS
    short = n >= max(8 * d, MIN_SHORT_POINTS)  # else too few points for the axes to pay
    if not (eight_bits or short) or n < 8 * k:
        return Whole(v)
    trial = _trial(v, CANDIDATES_PER_K * k if candidates is None else candidates)
    sample = trial.points
    cost, best = float(d + READ_COST), lambda: Whole(v)

    def consider(product: float, made: Compared | None, make: Callable[[], Compared]) -> None:
        nonlocal cost, best
        if made is not None and (new := trial.cost(product, made, may_miss)) < cost:
            cost, best = new, make

    if eight_bits:
        product = ROUNDED_COST * d + SUM_COST
        consider(product, _eight_bits.rounded(sample), lambda: _eight_bits.rounded(v) or Whole(v))
        if may_miss and d >= MIN_WIDE:
            axes_sample = sample[:MAX_AXES_POINTS]
            head = d // 4
            product = ROUNDED_COST * head + SUM_COST + d * head * (n + len(sample)) / pairs
            axes = _eight_bits.leading_axes(axes_sample, head)
            consider(
                product,
                _eight_bits.rounded(sample, axes),
                lambda: _eight_bits.rounded(v, axes) or Whole(v),
            )
    # Axes take long where d is large: not where short vectors could not be better.
    axes_cost = _axes_cost(n, d, len(sample)) / pairs
    if short and trial.cost(d // 8 + 1 + axes_cost) < cost:
        axes_of_all = principal_axes(sample)
        for head in (d // 8, d // 4, d // 2):
            consider(
                head + 1 + axes_cost,
                shorten(sample, axes_of_all, head),
                partial(shorten, v, axes_of_all, head),
            )
    return best()


def _axes_cost(n: int, d: int, sample: int) -> float:
    """Multiplications of finding axes, of trying three lengths on them and of turning n points."""
    return float(d * d * (sample * 4 + n + EIGENVECTOR_COST * d))


def _trial(v: Array, candidates: float) -> Trial:
    n = len(v)
    most = MAX_CHOICE_POINTS if v.shape[1] < MIN_WIDE else MAX_CHOICE_POINTS // 2
    size = min(n // 2, most)
    points = v[np.random.default_rng(0).choice(n, size, replace=False)]
    similarities = points[:SAMPLE_QUERIES] @ points.T
    rank = max(1, round(candidates / n * size)) + 1  # and the query itself
    return Trial(points, similarities, np.partition(similarities, -rank, axis=1)[:, -rank])
