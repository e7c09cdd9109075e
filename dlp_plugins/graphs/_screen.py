"""Short vectors whose inner products bound those of the descriptors from above.

Descriptors lie near few dimensions. Turned onto their principal axes, each is a head h of few
numbers and a tail t of many small ones, and by Cauchy and Schwarz, for any two points,

    v_i . v_j = h_i . h_j + t_i . t_j <= h_i . h_j + |t_i| |t_j| = [h_i, |t_i|] . [h_j, |t_j|].

So a product of short vectors rules out almost all pairs; only the others need all their numbers.
"""

from __future__ import annotations

import numpy as np
import torch

from dlp_plugins._threads import chunks, parallel
from dlp_plugins.graphs._select import Array

ROUNDING = np.float32(1e-5)  # of vectors turned in float32, and of their products
SAMPLE, QUERIES = 4096, 128
# In multiples of one number of a product: reading the result of a product, whatever its length, and
# gathering one pair's vectors for a second look (docs/performance.md, "Graph").
READ, GATHER = 25, 15
WANTED = 2.5  # a search asks for somewhat more than k neighbours


def screen(v: Array, k: int) -> Array:
    """[n, h + 1] float32 as above; v [n, d] itself where short vectors would rule out too little.

    How much each length would rule out is seen on a sample.
    """
    n, d = v.shape
    if n < max(8 * d, 2 * SAMPLE, 8 * k):  # too few points for the axes to pay
        return v
    random = np.random.default_rng(0)
    sample = v[random.choice(n, SAMPLE, replace=False)]
    axes = np.linalg.eigh(sample.T @ sample)[1][:, ::-1]
    similarities = sample[:QUERIES] @ sample.T
    rank = max(1, round(WANTED * k / n * SAMPLE)) + 1  # and the query itself
    threshold = np.partition(similarities, -rank, axis=1)[:, -rank, None]

    best, best_cost = v, float(d + READ)
    for head in (d // 8, d // 4, d // 2):
        short = _shorten(sample, axes, head)
        left = np.mean(short[:QUERIES] @ short.T >= threshold)
        # twice: a pair is looked at again if either of its ends may want it
        cost = head + 1 + READ + 2 * left * GATHER * d
        if cost < best_cost:
            best, best_cost = short, cost
    if best is v:
        return v
    rows = parallel(lambda rows: _shorten(v[rows], axes, best.shape[1] - 1), chunks(n, SAMPLE))
    return np.concatenate(list(rows))


def heads(v: Array, short: Array) -> Array:
    """Short vectors without the norm of the tail: products near the similarities; or v itself."""
    return v if short is v else np.ascontiguousarray(short[:, :-1])


def _shorten(v: Array, axes: Array, head: int) -> Array:
    turned = v @ axes
    tail = np.linalg.norm(turned[:, head:], axis=1, keepdims=True)
    return np.concatenate([turned[:, :head], tail], axis=1)


def confirm(a: Array, b: Array, at: Array, bound: Array) -> tuple[Array, Array]:
    """Which of the pairs `at` reach the bound [m] of their row in a [m, d]; their similarities."""
    similarities = _products_at(a, b, at)
    above = np.flatnonzero(similarities >= bound.take(at // len(b)))
    return at.take(above), similarities.take(above)


def _products_at(a: Array, b: Array, at: Array) -> Array:
    """Entries `at` (ascending, counted along the rows) of a b^T, for a [m, d] and b [n, d]."""
    shape = len(a), len(b)
    row_starts = np.searchsorted(at, np.arange(shape[0] + 1) * shape[1])
    wanted = torch.sparse_csr_tensor(
        torch.from_numpy(row_starts), torch.from_numpy(at % shape[1]), torch.zeros(len(at)),
        shape, check_invariants=False,
    )  # fmt: skip
    left, right = torch.from_numpy(a), torch.from_numpy(b)
    return torch.sparse.sampled_addmm(wanted, left, right.T, beta=0.0).values().numpy()
