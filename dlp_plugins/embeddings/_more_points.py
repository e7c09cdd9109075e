"""Neighbour lists of old and new points, from those of the old ones.

Shapes: m old points, b new ones, d numbers each, k neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dlp_plugins._threads import length, row_slices
from dlp_plugins.graph import Neighbors

BLOCK_ENTRIES = 2**22  # similarities held at once: 16 MiB


def extend_neighbors(known: Neighbors, f: Tensor, old: int, k: int) -> Neighbors:
    """The k nearest others of each of m + b unit rows f, without comparing old with old.

    Exact where the old lists are: an old point's k nearest are among its old ones and the new.

    Args:
        known: of the first m rows.
        f: [m + b, d] float32.
        old: m.
        k: at most m + b - 1; may be more than the old lists hold.
    """
    n, width = len(f), known.indices.shape[1]
    indices = torch.full((n, k), -1, dtype=torch.long)
    similarities = torch.full((n, k), -torch.inf)
    indices[:old, :width] = known.indices.long()
    missing = known.indices < 0
    similarities[:old, :width] = known.similarities.float().masked_fill(missing, -torch.inf)
    new = f[old:]
    blocks = list(row_slices(len(new), n, BLOCK_ENTRIES))
    products = f.new_empty(max((length(rows) for rows in blocks), default=0), n)
    for rows in blocks:
        # into the same memory each time: new pages would take a fifth of the product's time
        s = torch.mm(new[rows], f.T, out=products[: length(rows)])
        at = torch.arange(rows.start, rows.stop)
        s[at - rows.start, old + at] = -torch.inf  # a point is not its own neighbour
        similarities[old + at], indices[old + at] = s.topk(k, dim=1)
        nearer = s[:, :old].amax(dim=0) > similarities[:old].amin(dim=1)
        changed = nearer.nonzero().squeeze(1)
        _merge(indices, similarities, changed, s[:, changed].T, old + rows.start)
    return Neighbors(indices.int(), similarities.masked_fill(indices < 0, 0.0))


def _merge(indices: Tensor, similarities: Tensor, rows: Tensor, s: Tensor, first: int) -> None:
    """Put what is nearer into the lists of `rows`: s [r, q] with the points from `first` on."""
    k = indices.shape[1]
    best = s.topk(min(k, s.shape[1]), dim=1)
    both = torch.cat([similarities[rows], best.values], dim=1)
    chosen = both.topk(k, dim=1)
    candidates = torch.cat([indices[rows], best.indices + first], dim=1)
    similarities[rows] = chosen.values
    indices[rows] = torch.where(
        chosen.values > -torch.inf, candidates.gather(1, chosen.indices), -1
    )
