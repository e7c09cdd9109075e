"""Approximate search by cells: as an inverted file, but with a matrix product for each cell.

An inverted file takes one query after another through its cells. Here the points are taken a group
at a time, near ones together, and each cell is compared with all of the group that look into it in
one product, at the machine's full speed. Only groups in work hold candidates, and each is one
thread's from start to end. A point's own cell gives a lower bound on its k-th similarity, its two
nearest cells a nearly final one; the other cells' similarities are compared with that, so that few
have to be kept. Where descriptors lie near few dimensions the other cells are compared by short
vectors (`_screen.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import starmap

import numpy as np
import torch

from dlp_plugins._threads import chunks, parallel, row_chunks
from dlp_plugins.graphs._kmeans import centers
from dlp_plugins.graphs._top_k import Array, Nearest, Pairs, nearest
from dlp_plugins.graphs._upper_bound import ROUNDING, heads, products_at, screen, tail_share

GROUP, GROUPS = 2**16, 8  # points that are searched for together: so many at most; groups at least
ENTRIES = 2**20  # similarities in a block
ROWS = 4096  # of them at most
VISITS = 32  # blocks whose short products are read before a second look
CROWD = 16  # in multiples of k, candidates of a point in one cell; a few suffice as a rule
FIRST = 2  # cells looked into first, to know which of the others' points are worth keeping


@dataclass(frozen=True)
class Cells:
    """All points, those of a cell side by side: cell c holds the points start[c] : start[c + 1].

    v: [n, d] float32.
    short: [n, h] as of `_screen.screen`, or v itself.
    home: [n], each point's own cell.
    start: [cells + 1].
    """

    v: Array
    short: Array
    home: Array
    start: Array

    @property
    def screened(self) -> bool:
        return self.short is not self.v

    def members(self, cell: int) -> slice:
        return slice(self.start[cell], self.start[cell + 1])


def search(v: Array, k: int, size: int, probes: int, seed: int) -> tuple[Array, Array, Array]:
    """The k nearest of each row of v [n, d] float32, itself included, among its `probes` cells.

    Returns:
        indices [n, k] int32 and similarities [n, k] float32; -1 and -inf where cells held fewer;
        order [n] int32, the points of a cell side by side, and near cells near each other.
    """
    n = len(v)
    short = screen(v, k)
    near = heads(v, short)
    # a cell with fewer than k points bounds nothing
    middle = centers(near, max(1, n // max(size, 4 * k)), seed)
    looked_into = _nearest_cells(near, middle, min(probes, len(middle)))
    order = np.argsort(looked_into[:, 0], kind="stable").astype(np.int32)
    looked_into = looked_into[order]
    by_cell = _rows(v, order)
    home = looked_into[:, 0]
    cells = Cells(
        by_cell,
        by_cell if short is v else _rows(short, order),
        home,
        np.searchsorted(home, np.arange(len(middle) + 1)),
    )
    indices, similarities = np.empty((n, k), np.int32), np.empty((n, k), np.float32)

    def group(rows: slice) -> None:
        found = _search_for(cells, rows, looked_into[rows], k)
        original = order[rows]
        indices[original] = np.where(found.indices < 0, -1, order[found.indices])
        similarities[original] = found.similarities

    for _ in parallel(group, chunks(n, min(GROUP, 1 + n // GROUPS))):
        pass
    return indices, similarities, order


def _rows(v: Array, order: Array) -> Array:
    """v[order], by all threads."""
    return torch.from_numpy(v).index_select(0, torch.from_numpy(order)).numpy()


def _nearest_cells(v: Array, middle: Array, probes: int) -> Array:
    """Each point's nearest cells [n, probes] int32, in ascending distance."""
    looked_into = np.empty((len(v), probes), np.int32)

    def block(rows: slice) -> None:
        s = v[rows] @ middle.T
        pairs = _reaching(s, _kth_at_least(s, probes), np.arange(len(s)), 0, probes)
        found = nearest([pairs], len(s), probes, share=map)
        by_rank = np.argsort(-found.similarities, axis=1)
        looked_into[rows] = np.take_along_axis(found.indices, by_rank, axis=1)

    for _ in parallel(block, chunks(len(v), max(1, min(ROWS, ENTRIES // len(middle))))):
        pass
    return looked_into


def _search_for(cells: Cells, rows: slice, looked_into: Array, k: int) -> Nearest:
    """The nearest of the m points `rows` in the cells that each looks into [m, probes]."""
    own, bound = _own_cells(cells, rows, k)
    queries = cells.short[rows]
    if cells.screened:
        queries = queries.copy()
        queries[:, -1] *= tail_share(queries, cells.short, own)
    second = _candidates(cells, rows, queries, looked_into[:, 1:FIRST], bound, k)
    found = nearest([own, *second], len(queries), k, share=map)
    bound = found.similarities.min(axis=1)
    others = _candidates(cells, rows, queries, looked_into[:, FIRST:], bound, k)
    return nearest([found.pairs(), *others], len(queries), k, share=map)


def _own_cells(cells: Cells, rows: slice, k: int) -> tuple[Pairs, Array]:
    """Pairs of each point with others of its cell, and a bound [m] that some k of those reach."""
    found, bounds = [], []
    for cell, block in _visits(cells, cells.home[rows, None]):
        own, members = cells.v[rows][block], cells.members(cell)
        s = own @ cells.v[members].T
        # the k-th itself must reach it when its similarity is computed anew
        bound = _kth_at_least(s, k) - ROUNDING
        found.append(_reaching(s, bound, block, members.start, k))
        bounds.append(bound)
    return _joined(found), np.concatenate(bounds)  # points of a cell are side by side


def _candidates(
    cells: Cells, rows: slice, queries: Array, looked_into: Array, bound: Array, k: int
) -> Iterator[Pairs]:
    """Pairs of the m points `rows` with others, in the cells they look into, that reach the bound.

    queries: [m, h] vectors whose products with cells.short are no less than the similarities.
    looked_into: [m, probes].
    bound: [m].
    """
    limit = bound - ROUNDING if cells.screened else bound

    def reaching(cell: int, block: Array) -> Pairs:
        members = cells.members(cell)
        s = queries[block] @ cells.short[members].T
        return _reaching(s, limit[block], block, members.start, k)

    visits = list(_visits(cells, looked_into))
    for some in chunks(len(visits), VISITS):
        pairs = _joined(list(starmap(reaching, visits[some])))
        yield _confirmed(cells.v[rows], cells.v, pairs, bound) if cells.screened else pairs


def _visits(cells: Cells, looked_into: Array) -> Iterator[tuple[int, Array]]:
    """Each cell with the points, counted as looked_into [m, probes], that look into it."""
    if not looked_into.size:
        return
    visits = np.argsort(looked_into.reshape(-1), kind="stable").astype(np.int32)
    visited, first = np.unique(looked_into.reshape(-1)[visits], return_index=True)
    visitors = np.split(visits // np.int32(looked_into.shape[1]), first[1:])
    for cell, points in zip(visited, visitors, strict=True):
        members = cells.members(cell)
        for block in row_chunks(len(points), members.stop - members.start, ENTRIES):
            yield cell, points[block]


def _confirmed(a: Array, b: Array, pairs: Pairs, bound: Array) -> Pairs:
    """Those of the pairs, of a [m, d] with b [n, d], whose similarity reaches the bound [m]."""
    runs = np.flatnonzero(np.diff(pairs.rows, prepend=-1))  # pairs that follow each other in a row
    row_starts = np.append(runs, len(pairs.rows)).astype(np.int32)
    similarities = products_at(a[pairs.rows[runs]], b, row_starts, pairs.cols)
    above = np.flatnonzero(similarities >= bound.take(pairs.rows))
    return Pairs(pairs.rows.take(above), pairs.cols.take(above), similarities.take(above))


def _joined(parts: list[Pairs]) -> Pairs:
    return Pairs(*map(np.concatenate, zip(*parts, strict=True)))


def _reaching(s: Array, bound: Array, rows: Array, first: int, k: int) -> Pairs:
    """Pairs of the points `rows` with those from `first` on whose s [m, columns] reach bound [m].

    Where a crowd does, as duplicates do, the `CROWD` k largest of each row.
    """
    at = np.flatnonzero(s >= bound[:, None])
    columns = s.shape[1]
    if len(at) > CROWD * k * len(s):
        largest = np.argpartition(s, -CROWD * k, axis=1)[:, -CROWD * k :]
        at = np.sort(largest + columns * np.arange(len(s))[:, None], axis=None)
    i, j = np.divmod(at.astype(np.int32), np.int32(columns))
    return Pairs(rows.take(i).astype(np.int32), j + np.int32(first), s.reshape(-1).take(at))


def _kth_at_least(s: Array, k: int) -> Array:
    """For each row of s a bound that k of its entries reach; -inf where it has too few.

    The k-th largest of the maxima of 4 k to 8 k groups: a little low, and much faster to find.
    """
    if s.shape[1] < k:
        return np.full(len(s), -np.inf, np.float32)
    while (half := s.shape[1] // 2) >= 4 * k:
        s = np.maximum(s[:, :half], s[:, half : 2 * half])
    return np.sort(s, axis=1)[:, -k]
