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
from dlp_plugins.graphs._compared import ROUNDING, Compared, Whole
from dlp_plugins.graphs._top_k import Array, Pairs

SAMPLE_POINTS = 4096  # near pairs that show how alike tails are; points that one thread shortens
MISS_RATE = 1e-3  # share of near pairs that a scaled bound may lose: a hundredth of what cells miss


@dataclass(frozen=True)
class ShortVectors(Compared):
    """Short vectors [h_i, |t_i|] of n points.

    values: [n, h + 1] float32; their inner products are no less than those of the descriptors.
    """

    values: Array

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, chosen: slice | Array) -> ShortVectors:
        return ShortVectors(self.values[chosen])

    def products(self, others: ShortVectors, out: Array | None = None) -> Array:
        return np.matmul(self.values, others.values.T, out=out)

    def limits(self, bound: Array) -> Array:
        return bound - ROUNDING

    @property
    def heads(self) -> Array:
        """[n, h]: without the norms of the tails, so that products are near the similarities."""
        return np.ascontiguousarray(self.values[:, :-1])

    def estimating(self) -> Whole:
        return Whole(self.heads)

    def similarities(self, products: Array) -> Array:
        return products

    def lacking(self, others: ShortVectors, pairs: Pairs) -> tuple[Array, Array]:
        one, other = self.values[pairs.rows], others.values[pairs.cols]
        heads = np.einsum("ij,ij->i", one[:, :-1], other[:, :-1])
        return pairs.similarities - heads, one[:, -1] * other[:, -1]

    def narrowed(self, others: ShortVectors, share: float) -> tuple[ShortVectors, ShortVectors]:
        values = self.values.copy()
        values[:, -1] *= share
        return ShortVectors(values), others


def principal_axes(sample: Array) -> Array:
    """[d, d]: the eigenvectors of the sample's [m, d] inner products, the largest first."""
    return np.linalg.eigh(sample.T @ sample)[1][:, ::-1]


def shorten(v: Array, axes: Array, head: int) -> ShortVectors:
    """v [n, d] on axes [d, d], with all after the first `head` numbers as one norm."""

    def block(rows: slice) -> Array:
        turned = v[rows] @ axes
        tail = np.linalg.norm(turned[:, head:], axis=1, keepdims=True)
        return np.concatenate([turned[:, :head], tail], axis=1)

    return ShortVectors(np.concatenate(list(parallel(block, slices(len(v), SAMPLE_POINTS)))))


def lacking_share(queries: Compared, others: Compared, pairs: Pairs) -> float:
    """The share of what estimates may lack that all but `MISS_RATE` of known pairs stay below.

    Tails of near points are hardly alike, and rounding errors hardly either. A search that may miss
    a few pairs counts this share of them and so avoids most of the full comparisons that find
    nothing.

    Args:
        queries: the points that pairs.rows counts.
        others: the points that pairs.cols counts.
        pairs: near pairs with their similarities.
    """
    some = slice(None, None, max(1, len(pairs.rows) // SAMPLE_POINTS))
    pairs = Pairs(*(part[some] for part in pairs))
    lacking, most = queries.lacking(others, pairs)
    known = (pairs.similarities < 1 - ROUNDING) & (most > ROUNDING)  # not a point with itself
    if not known.any():
        return 1.0
    return float(np.quantile(lacking[known] / most[known], 1 - MISS_RATE).clip(0, 1))


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
