"""Neighbour lists of old and new points, from those of the old ones.

Shapes: m old points, b new ones, n = m + b, d numbers each, k neighbours; q of the new points are
compared with all at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from dlp_plugins._threads import length, parallel, slices
from dlp_plugins.environment import has_bfloat16
from dlp_plugins.graph import Neighbors

BLOCK_ENTRIES = 2**22  # similarities in float32 held at once: 16 MiB
# Estimates in bfloat16 pay for so many points and new ones at least. Of them 16 MiB are held at
# once, or 128 bytes for each point if that is more.
ESTIMATED_ENTRIES, MIN_ESTIMATED_POINTS, MIN_ESTIMATED_NEW = 2**23, 2**12, 64
# What rounding may change of a similarity of unit vectors: bfloat16 rounds both vectors and the
# product by at most 2^-8 each, and these errors multiply.
ERROR = 3.1 * 2**-8
# Pairs that estimates may leave, per new point and neighbour. More are left where many points are
# equally near, and then similarities in float32 take less time.
MOST_LEFT = 16
PANEL_ENTRIES = 2**18  # estimates that one thread makes at once, so that they stay in its cache
GROUP = 16  # points of which only the nearest is looked at first
# From so many groups per neighbour on, the bound on the k-th similarity is taken from the largest
# of every TOGETHER groups.
MANY_GROUPS, TOGETHER = 64, 8


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
    if old == n and width == k:
        return known
    lists = Lists.of(known, n, k)
    done = old
    if has_bfloat16(f.device) and n >= MIN_ESTIMATED_POINTS and n - old >= MIN_ESTIMATED_NEW:
        done = _by_estimates(lists, f, old)
    for rows in slices(n - done, max(1, BLOCK_ENTRIES // n)):
        new = slice(done + rows.start, done + rows.stop)
        s = f[new] @ f.T
        s[torch.arange(length(new)), torch.arange(new.start, new.stop)] = -torch.inf
        lists.similarities[new], lists.indices[new] = s.topk(k, dim=1)
        s = s[:, :old].T
        changed = (s.amax(dim=1) > lists.farthest[:old]).nonzero().squeeze(1)
        best = s[changed].topk(min(k, length(new)), dim=1)
        lists.keep(changed, best.indices + new.start, best.values)
    missing = lists.indices < 0
    return Neighbors(lists.indices.int(), lists.similarities.masked_fill(missing, 0.0))


@dataclass(frozen=True)
class Lists:
    """Neighbour lists that are being extended; -1 and -inf where they are not full yet.

    indices: [n, k] int64.
    similarities: [n, k] float32.
    farthest: [n], the least similarity of a list.
    """

    indices: Tensor
    similarities: Tensor
    farthest: Tensor

    @classmethod
    def of(cls, known: Neighbors, n: int, k: int) -> Lists:
        m, width = known.indices.shape
        indices = torch.full((n, k), -1, dtype=torch.long)
        similarities = torch.full((n, k), -torch.inf)
        indices[:m, :width] = known.indices.long()
        missing = known.indices < 0
        similarities[:m, :width] = known.similarities.float().masked_fill(missing, -torch.inf)
        return cls(indices, similarities, similarities.amin(dim=1))

    def keep(self, points: Tensor, others: Tensor, similarities: Tensor) -> None:
        """Put what is nearer into the lists of `points` [r].

        Args:
            others: [r, c] numbers, and their similarities [r, c]; -inf for none.
        """
        both = torch.cat([self.similarities[points], similarities], dim=1)
        nearest = both.topk(self.indices.shape[1], dim=1)
        candidates = torch.cat([self.indices[points], others], dim=1)
        chosen = candidates.gather(1, nearest.indices)
        self.indices[points] = chosen.masked_fill(nearest.values == -torch.inf, -1)
        self.similarities[points] = nearest.values
        self.farthest[points] = nearest.values[:, -1]


def _by_estimates(lists: Lists, f: Tensor, old: int) -> int:
    """Extend lists by new points while estimates leave few pairs; returns the first not done.

    Products in bfloat16 rule out most pairs; the others are compared in full.
    """
    n, k = len(f), lists.indices.shape[1]
    rounded = f.to(torch.bfloat16)
    at_once = max(MIN_ESTIMATED_NEW, ESTIMATED_ENTRIES // n)
    at_once -= at_once % MIN_ESTIMATED_NEW  # the largest of whole vectors is found quickly
    estimates = Estimates.empty(n, min(at_once, n - old))
    for rows in slices(n - old, at_once):
        new = slice(old + rows.start, old + rows.stop)
        block, most = estimates.make(rounded, new), MOST_LEFT * k * length(new)
        of_new = _near_new(block, new, k, most)
        of_old = None if of_new is None else _near_old(block, lists.farthest[:old], new, most)
        if of_new is None or of_old is None:
            return new.start
        for near in (of_new, of_old):
            _keep(lists, f, near)
    return n


@dataclass(frozen=True)
class Estimates:
    """Similarities of all points with q new ones, each wrong by at most ERROR.

    s: [n up to a multiple of GROUP, q] bfloat16; -inf after the last point.
    of_points: [n] float32, the largest of each point's row of s.
    of_groups: [groups, q] float32, the largest of each GROUP of rows.
    """

    s: Tensor
    of_points: Tensor
    of_groups: Tensor

    @classmethod
    def empty(cls, n: int, q: int) -> Estimates:
        groups = -(-n // GROUP)
        s = torch.empty(groups * GROUP, q, dtype=torch.bfloat16)
        s[n:] = -torch.inf
        return cls(s, torch.empty(n), torch.empty(groups, q))

    def make(self, f: Tensor, new: slice) -> Estimates:
        """Of points f [n, d] bfloat16 with f[new], in this one's memory, as new pages take time."""
        q, others = length(new), f[new]
        out = Estimates(self.s[:, :q], self.of_points, self.of_groups[:, :q])

        def panel(rows: slice) -> None:
            within = slice(rows.start, min(rows.stop, len(f)))
            torch.mm(f[within], others.T, out=out.s[within])
            part = out.s[rows].float()  # of bfloat16 the largest takes ten times as long
            torch.amax(part[: length(within)], dim=1, out=out.of_points[within])
            groups = slice(rows.start // GROUP, rows.stop // GROUP)
            torch.amax(part.view(-1, GROUP, q), dim=1, out=out.of_groups[groups])

        for _ in parallel(panel, slices(len(out.s), GROUP * max(1, PANEL_ENTRIES // (GROUP * q)))):
            pass
        return out


class Near(NamedTuple):
    """Points that may be near each other.

    points: [r], whose lists may change.
    rows: [p], the first of each pair as a position in `points`, ascending.
    others: [p], the second.
    """

    points: Tensor
    rows: Tensor
    others: Tensor


def _near_new(block: Estimates, new: slice, k: int, most: int) -> Near | None:
    """What new points may be near: the k nearest, and few others. None for more than `most` pairs.

    At least k + 1 points, of which one is the point itself, reach the k + 1st largest of the groups
    of a column, and none of the k nearest is more than twice the error below that.
    """
    groups, q = block.of_groups, length(new)
    parts = groups
    if len(groups) >= MANY_GROUPS * (k + 1):
        whole = len(groups) - len(groups) % TOGETHER
        parts = groups[:whole].view(-1, TOGETHER, q).amax(dim=1)
    if k + 1 > len(parts):
        return None
    least = parts.topk(k + 1, dim=0).values[-1] - 2 * ERROR
    reach = groups >= least
    if int(reach.sum()) > most:
        return None
    group, column = reach.nonzero(as_tuple=True)
    reach = block.s.view(-1, GROUP, q)[group, :, column] >= least[column, None]
    if int(reach.sum()) > most:
        return None
    pair, member = reach.nonzero(as_tuple=True)
    point, column = GROUP * group[pair] + member, column[pair]
    other = point != column + new.start
    column, order = column[other].sort(stable=True)
    return Near(torch.arange(new.start, new.stop), column, point[other][order])


def _near_old(block: Estimates, farthest: Tensor, new: slice, most: int) -> Near | None:
    """Old points, farthest [m] in their lists, that new ones may be nearer to."""
    least = farthest - ERROR
    points = (block.of_points[: len(farthest)] > least).nonzero().squeeze(1)
    if len(points) > most:
        return None
    reach = block.s[points] > least[points, None]
    if int(reach.sum()) > most:
        return None
    row, column = reach.nonzero(as_tuple=True)
    return Near(points, row, column + new.start)


def _keep(lists: Lists, f: Tensor, near: Near) -> None:
    """Put what is nearer, by full comparisons, into lists."""
    if not len(near.rows):
        return
    counts = torch.bincount(near.rows, minlength=len(near.points))
    place = torch.arange(len(near.rows)) - (counts.cumsum(0) - counts)[near.rows]
    others = torch.full((len(near.points), int(counts.max())), -1)
    s = torch.full(others.shape, -torch.inf)
    for some in slices(len(near.rows), max(1, BLOCK_ENTRIES // f.shape[1])):
        row, other = near.rows[some], near.others[some]
        others[row, place[some]] = other
        s[row, place[some]] = torch.linalg.vecdot(f[near.points[row]], f[other])
    lists.keep(near.points, others, s)
