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
from dlp_plugins.graphs._top_k import Array, Pairs

ROUNDING = np.float32(1e-5)  # of vectors turned in float32, and of their products
SAMPLE, QUERIES = 4096, 128
MISSED = 1e-3  # a hundredth of what cells miss
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


def tail_share(queries: Array, short: Array, pairs: Pairs) -> float:
    """The share of |t_i| |t_j| that t_i . t_j stays below in all but `MISSED` of known near pairs.

    Tails of near points are hardly alike. A search that may miss a few pairs multiplies the tails
    of one end by this, and is then spared most second looks that come to nothing.

    queries: [m, h + 1] short vectors of the points that pairs.rows counts; short: of pairs.cols.
    """
    some = slice(None, None, max(1, len(pairs.rows) // SAMPLE))
    one, other = queries[pairs.rows[some]], short[pairs.cols[some]]
    similarities = pairs.similarities[some]
    bound = one[:, -1] * other[:, -1]
    tails = similarities - np.einsum("ij,ij->i", one[:, :-1], other[:, :-1])
    known = (similarities < 1 - ROUNDING) & (bound > ROUNDING)  # not a point with itself
    if not known.any():
        return 1.0
    return float(np.quantile(tails[known] / bound[known], 1 - MISSED).clip(0, 1))


def _shorten(v: Array, axes: Array, head: int) -> Array:
    turned = v @ axes
    tail = np.linalg.norm(turned[:, head:], axis=1, keepdims=True)
    return np.concatenate([turned[:, :head], tail], axis=1)


def confirm(a: Array, b: Array, at: Array, bound: Array) -> tuple[Array, Array]:
    """Which entries `at` of a b^T, counted along its rows, reach the bound [m] of their row.

    a: [m, d]; b: [n, d]. With their values.
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
