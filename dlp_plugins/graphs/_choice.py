"""Which vectors a search compares: whole descriptors, short ones, or ones of 8 bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dlp_plugins.graphs import _eight_bits
from dlp_plugins.graphs._compared import Compared, Whole
from dlp_plugins.graphs._top_k import Array
from dlp_plugins.graphs._upper_bound import principal_axes, shorten
from dlp_plugins.processes.group import ALONE, Processes

MIN_SHORT_POINTS = 2**13  # fewer are not worth the axes
MIN_ROUNDED_POINTS = 2**12
MIN_WIDE = 384  # numbers from which on the sample is smaller
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

    def cost(self, product: float, compared: Compared | None = None) -> float:
        """Of a pair: its product, and the share of full comparisons that it leaves.

        compared: the points as this search would have them; None for as few left as can be.
        """
        if compared is None:
            left = np.mean(self.similarities >= self.bound[:, None])
        else:
            queries = compared.rows(slice(SAMPLE_QUERIES))
            left = np.mean(queries.products(compared) >= queries.limits(self.bound)[:, None])
        # twice: a pair is compared in full if it may be near enough for either end
        full = PAIR_COST + GATHER_COST * self.points.shape[1]
        return product + READ_COST + 2 * float(left) * full


def choose(
    v: Array,
    k: int,
    pairs: float,
    candidates: float | None = None,
    processes: Processes = ALONE,
) -> Compared:
    """What to compare v [n, d] float32 by: the cheapest, by a trial on a sample.

    Args:
        pairs: how many pairs the search compares, over which the costs of axes are spread.
        candidates: how many others of each point reach its threshold in the search; by default
            `CANDIDATES_PER_K` k.
        processes: those that search together, and so compare the same.
    """
    n, d = v.shape
    eight_bits = n >= MIN_ROUNDED_POINTS and all(processes.each(_eight_bits.available()))
    short = n >= max(8 * d, MIN_SHORT_POINTS)  # else too few points for the axes to pay
    if not (eight_bits or short) or n < 8 * k:
        return Whole(v)
    trial = _trial(v, CANDIDATES_PER_K * k if candidates is None else candidates)
    sample = _eight_bits.rounded(trial.points) if eight_bits else None
    cost = float(d + READ_COST)
    rounded_cost = cost if sample is None else trial.cost(ROUNDED_COST * d + SUM_COST, sample)
    # Axes take long where d is large: not where short vectors could not be better.
    best_head, axes_cost = 0, _axes_cost(n, d, len(trial.points)) / pairs
    if short and trial.cost(d // 8 + 1 + axes_cost) < min(cost, rounded_cost):
        axes = principal_axes(trial.points)
        for head in (d // 8, d // 4, d // 2):
            shortened = shorten(trial.points, axes, head)
            head_cost = trial.cost(head + 1 + axes_cost, shortened)
            if head_cost < cost:
                best_head, cost = head, head_cost
    if rounded_cost < cost and (rounded := _eight_bits.rounded(v)) is not None:
        return rounded
    return shorten(v, axes, best_head) if best_head else Whole(v)


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
