"""Neighbour lists of old and new points, from those of the old ones.

Shapes: m old points, b new ones, n = m + b, d numbers each, k neighbours; q of the new points are
compared with all at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlp_plugins._threads import length, parallel, slices
from dlp_plugins.environment import has_bfloat16
from dlp_plugins.graph import Neighbors

BLOCK_ENTRIES = 2**24  # similarities held at once: 32 or 64 MiB
PANEL = 2048  # points compared with new ones at once, so that their products stay in cache
COLUMNS = 64  # new points at once, a multiple: the largest of whole vectors is found quickly
GROUP = 16  # points of which only the nearest is looked at first; PANEL is a multiple
MANY_GROUPS = (
    64  # times k groups, of which only the nearest of TOGETHER tells how near k points are
)
TOGETHER = 8
# What rounding may change of a similarity of unit vectors. bfloat16 rounds both vectors and the
# product by at most 2^-8 of their length each.
ERROR = {torch.float32: 1e-5, torch.bfloat16: 3.1 * 2**-8}


def extend_neighbors(known: Neighbors, f: Tensor, old: int, k: int) -> Neighbors:
    """The k nearest others of each of m + b unit rows f, without comparing old with old.

    Exact where the old lists are: an old point's k nearest are among its old ones and the new.
    Products in bfloat16, where the processor has it, rule out all but a few pairs.

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
    dtype = torch.bfloat16 if has_bfloat16(f.device) else torch.float32
    rounded, error = f.to(dtype), ERROR[dtype]
    at_once = max(1, BLOCK_ENTRIES // n)
    if at_once > COLUMNS:
        at_once -= at_once % COLUMNS
    compared = Compared.empty(n, min(at_once, n - old), dtype)
    for rows in slices(n - old, at_once):
        new = slice(old + rows.start, old + rows.stop)
        block = compared.compare(rounded, new)
        q, point = _candidates(block, new, k, error)
        found = Pairs(q, point, torch.linalg.vecdot(f[new][q], f[point]))
        _keep_nearest(indices, similarities, torch.arange(new.start, new.stop), found)
        least = similarities[:old].amin(dim=1) - error
        changed = (block.of_points[:old] > least).nonzero().squeeze(1)
        row, q = (block.s[changed] > least[changed, None]).nonzero(as_tuple=True)
        found = Pairs(row, new.start + q, torch.linalg.vecdot(f[changed[row]], f[new][q]))
        _keep_nearest(indices, similarities, changed, found)
    return Neighbors(indices.int(), similarities.masked_fill(indices < 0, 0.0))


@dataclass(frozen=True)
class Compared:
    """Similarities of all points with q new ones, and where they are largest.

    s: [n up to a multiple of GROUP, q]; -inf after the last point.
    of_points: [n] float32, the largest of each point's row of s.
    of_groups: [groups, q] float32, the largest of each GROUP of rows.
    """

    s: Tensor
    of_points: Tensor
    of_groups: Tensor

    @classmethod
    def empty(cls, n: int, q: int, dtype: torch.dtype) -> Compared:
        groups = -(-n // GROUP)
        s = torch.empty(groups * GROUP, q, dtype=dtype)
        s[n:] = -torch.inf
        return cls(s, torch.empty(n), torch.empty(groups, q))

    def compare(self, f: Tensor, new: slice) -> Compared:
        """Of points f [n, d] with f[new]; it takes this one's memory, as new pages take time."""
        q, others = length(new), f[new]
        out = Compared(self.s[:, :q], self.of_points, self.of_groups[:, :q])

        def compare(panel: slice) -> None:
            within = slice(panel.start, min(panel.stop, len(f)))
            torch.mm(f[within], others.T, out=out.s[within])
            part = out.s[panel].float()  # of bfloat16 the largest takes ten times as long
            torch.amax(part[: length(within)], dim=1, out=out.of_points[within])
            groups = slice(panel.start // GROUP, panel.stop // GROUP)
            torch.amax(part.view(-1, GROUP, q), dim=1, out=out.of_groups[groups])

        for _ in parallel(compare, slices(len(out.s), PANEL)):
            pass
        return out


def _candidates(block: Compared, new: slice, k: int, error: float) -> tuple[Tensor, Tensor]:
    """Pairs of a new point and one of all, its k nearest among them and few others.

    Args:
        block: of all points with the new ones, each similarity wrong by at most `error`.

    Returns:
        Positions among the new points [p], ascending, and numbers of the others [p].
    """
    of_groups, q, enough = block.of_groups, length(new), k + 1  # the point itself is among them
    parts = of_groups
    if len(parts) >= MANY_GROUPS * enough:
        whole = len(parts) - len(parts) % TOGETHER
        parts = parts[:whole].view(-1, TOGETHER, q).amax(dim=1)
    if enough > len(parts):
        least = torch.full((q,), -torch.inf)
    else:
        # so many points at least are as near as the last of the nearest parts, and none of the
        # nearest is more than twice the error farther
        least = parts.topk(enough, dim=0).values[-1] - 2 * error
    group, column = (of_groups >= least).nonzero(as_tuple=True)
    near = block.s.view(-1, GROUP, q)[group, :, column] >= least[column, None]
    pair, member = near.nonzero(as_tuple=True)
    row, column = GROUP * group[pair] + member, column[pair]
    others = (row < len(block.of_points)) & (row != column + new.start)
    column, order = column[others].sort(stable=True)
    return column, row[others][order]


@dataclass(frozen=True)
class Pairs:
    """p pairs of a point whose list may change and a point that may come into it.

    rows: [p] positions of the first among those whose lists may change, ascending.
    others: [p] numbers of the second.
    similarities: [p].
    """

    rows: Tensor
    others: Tensor
    similarities: Tensor


def _keep_nearest(indices: Tensor, similarities: Tensor, points: Tensor, pairs: Pairs) -> None:
    """Put what is nearer into the lists [n, k] of `points` [r], which pairs.rows counts."""
    if not len(pairs.rows):
        return
    k = indices.shape[1]
    counts = torch.bincount(pairs.rows, minlength=len(points))
    place = k + torch.arange(len(pairs.rows)) - (counts.cumsum(0) - counts)[pairs.rows]
    at = torch.full((len(points), k + int(counts.max())), -1)
    s = torch.full(at.shape, -torch.inf)
    at[:, :k], s[:, :k] = indices[points], similarities[points]
    at[pairs.rows, place], s[pairs.rows, place] = pairs.others, pairs.similarities
    similarities[points], nearest = s.topk(k, dim=1)
    indices[points] = at.gather(1, nearest)
