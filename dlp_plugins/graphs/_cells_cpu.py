"""Approximate search by cells: an inverted file with a matrix product for each cell.

An inverted file takes one query after another through the cells that it probes. Here the points are
taken a group at a time, near ones together, and each cell is compared with all of the group that
probe it in one product, at the machine's full speed. Only the groups being worked on hold
candidates, and one thread takes a group from start to end. A point's own cell gives a lower bound
on its k-th similarity, its two nearest cells a nearly final one; the similarities in the other
cells are compared with that, so that few of them are kept. Where descriptors lie near few
dimensions the other cells are compared by short vectors (`_upper_bound.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import starmap

import numpy as np
import torch

from dlp_plugins._threads import length, parallel, row_slices, slices
from dlp_plugins.graphs._choice import choose
from dlp_plugins.graphs._compared import ROUNDING, Compared, Whole
from dlp_plugins.graphs._kmeans import find_centroids
from dlp_plugins.graphs._top_k import Array, Nearest, Pairs, nearest
from dlp_plugins.graphs._upper_bound import ShortVectors, lacking_share, products_at
from dlp_plugins.processes.group import ALONE, Processes

MAX_GROUP_POINTS = 2**16  # largest group of query points
MIN_GROUPS = 8  # fewest groups, so that every thread has work
BLOCK_ENTRIES = 2**20  # similarities in one product
MAX_BLOCK_ROWS = 4096  # query points in one product with all centroids
BLOCKS_PER_CONFIRM = 32  # products of short vectors whose survivors are compared in full together
MAX_CANDIDATES_PER_K = 16  # of one point in one cell; only duplicates reach this
FIRST_ROUND_CELLS = 2  # cells that give a point its bound for all others


@dataclass(frozen=True)
class CellLists:
    """All points, those of a cell side by side: cell c holds the points start[c] : start[c + 1].

    v: [n, d] float32, in any order.
    order: [n] int32, which of v each point is.
    compared: what the points are compared by, in this order.
    cell_of: [n], the cell of each point.
    start: [cells + 1].
    """

    v: Array
    order: Array
    compared: Compared
    cell_of: Array
    start: Array

    def members(self, cell: int) -> slice:
        return slice(self.start[cell], self.start[cell + 1])


def search(
    v: Array, k: int, size: int, probes: int, seed: int, processes: Processes = ALONE
) -> tuple[Array, Array, Array]:
    """The k nearest of each row of v [n, d] float32, itself included, among its `probes` cells.

    processes: each takes its share of the groups of query points; all get all.

    Returns:
        indices [n, k] int32 and similarities [n, k] float32; -1 and -inf where cells held fewer;
        order [n] int32, the points of a cell side by side, and near cells near each other.
    """
    n = len(v)
    compared = choose(v, k, n * min(n, probes * size), may_miss=True)
    near = compared.heads if isinstance(compared, ShortVectors) else v
    # a cell with fewer than k points bounds nothing
    centroids = find_centroids(near, max(1, n // max(size, 4 * k)), seed)
    probed = _nearest_cells(near, centroids, min(probes, len(centroids)))
    order = np.argsort(probed[:, 0], kind="stable").astype(np.int32)
    probed = probed[order]
    cell_of = probed[:, 0]
    cells = CellLists(
        v,
        order,
        compared.rows(order),
        cell_of,
        np.searchsorted(cell_of, np.arange(len(centroids) + 1)),
    )
    indices, similarities = np.empty((n, k), np.int32), np.empty((n, k), np.float32)

    def group(rows: slice) -> None:
        found = _search_for(cells, rows, probed[rows], k)
        original = order[rows]
        indices[original] = np.where(found.indices < 0, -1, order[found.indices])
        similarities[original] = found.similarities

    groups = list(slices(n, min(MAX_GROUP_POINTS, 1 + n // max(MIN_GROUPS, processes.size))))
    mine, counts = processes.share_blocks(groups, length)
    for _ in parallel(group, mine):
        pass
    if not processes.alone:
        own = order[mine[0].start : mine[-1].stop] if mine else None
        for found in (indices, similarities):
            part = None if own is None else torch.from_numpy(found[own])
            found[order] = processes.gather_rows(part, counts).numpy()
    return indices, similarities, order


def _nearest_cells(v: Array, centroids: Array, probes: int) -> Array:
    """Each point's nearest cells [n, probes] int32, in ascending distance."""
    probed = np.empty((len(v), probes), np.int32)

    def block(rows: slice) -> None:
        s = v[rows] @ centroids.T
        pairs = _reaching(s, _kth_at_least(s, probes), np.arange(len(s)), 0, probes)
        found = nearest([pairs], len(s), probes, share=map)
        by_rank = np.argsort(-found.similarities, axis=1)
        probed[rows] = np.take_along_axis(found.indices, by_rank, axis=1)

    for _ in parallel(block, row_slices(len(v), len(centroids), BLOCK_ENTRIES, MAX_BLOCK_ROWS)):
        pass
    return probed


def _search_for(cells: CellLists, rows: slice, probed: Array, k: int) -> Nearest:
    """The k nearest of the m points `rows` in the cells that each probes [m, probes]."""
    own, bound = _own_cells(cells, rows, k)
    queries, others = cells.compared.rows(rows), cells.compared
    queries, others = queries.narrowed(others, lacking_share(queries, others, own))
    narrowed = replace(cells, compared=others)
    second = _candidates(narrowed, rows, queries, probed[:, 1:FIRST_ROUND_CELLS], bound, k)
    found = nearest([own, *second], len(queries), k, share=map)
    bound = found.similarities.min(axis=1)
    further = _candidates(narrowed, rows, queries, probed[:, FIRST_ROUND_CELLS:], bound, k)
    return nearest([found.pairs(), *further], len(queries), k, share=map)


def _own_cells(cells: CellLists, rows: slice, k: int) -> tuple[Pairs, Array]:
    """Pairs of each point with others of its cell, and a bound [m] that some k of those reach."""
    found, bounds = [], []
    for cell, block in _probes_by_cell(cells, cells.cell_of[rows, None]):
        members = cells.members(cell)
        own = cells.v[cells.order[rows][block]]
        s = own @ cells.v[cells.order[members]].T
        # the k-th itself must reach it when its similarity is computed by another product
        bound = _kth_at_least(s, k) - ROUNDING
        found.append(_reaching(s, bound, block, members.start, k))
        bounds.append(bound)
    return _joined(found), np.concatenate(bounds)  # points of a cell are side by side


def _candidates(
    cells: CellLists, rows: slice, queries: Compared, probed: Array, bound: Array, k: int
) -> Iterator[Pairs]:
    """Pairs of the m points `rows` with others, in the cells they probe, that reach the bound.

    queries: what the m points are compared by with cells.compared.
    probed: [m, probes].
    bound: [m].
    """

    def reaching(cell: int, block: Array) -> Pairs:
        members, some = cells.members(cell), queries.rows(block)
        s = some.products(cells.compared.rows(members))
        return _reaching(s, some.limits(bound[block]), block, members.start, k)

    whole = isinstance(cells.compared, Whole)
    blocks = list(_probes_by_cell(cells, probed))
    for some in slices(len(blocks), BLOCKS_PER_CONFIRM):
        pairs = _joined(list(starmap(reaching, blocks[some])))
        yield pairs if whole else _confirmed(cells, rows, pairs, bound)


def _probes_by_cell(cells: CellLists, probed: Array) -> Iterator[tuple[int, Array]]:
    """Each cell with the points, counted as rows of probed [m, probes], that probe it.

    A cell that many points probe comes several times, with a block of them each.
    """
    if not probed.size:
        return
    by_cell = np.argsort(probed.reshape(-1), kind="stable").astype(np.int32)
    visited, first = np.unique(probed.reshape(-1)[by_cell], return_index=True)
    points_of = np.split(by_cell // np.int32(probed.shape[1]), first[1:])
    for cell, points in zip(visited, points_of, strict=True):
        members = cells.members(cell)
        for block in row_slices(len(points), members.stop - members.start, BLOCK_ENTRIES):
            yield cell, points[block]


def _confirmed(cells: CellLists, rows: slice, pairs: Pairs, bound: Array) -> Pairs:
    """Those of the pairs of the m points `rows` with all whose similarity reaches the bound [m]."""
    runs = np.flatnonzero(np.diff(pairs.rows, prepend=-1))  # pairs of the same row side by side
    row_starts = np.append(runs, len(pairs.rows)).astype(np.int32)
    own = cells.v[cells.order[rows][pairs.rows[runs]]]
    similarities = products_at(own, cells.v, row_starts, cells.order[pairs.cols])
    above = np.flatnonzero(similarities >= bound.take(pairs.rows))
    return Pairs(pairs.rows.take(above), pairs.cols.take(above), similarities.take(above))


def _joined(parts: list[Pairs]) -> Pairs:
    return Pairs(*map(np.concatenate, zip(*parts, strict=True)))


def _reaching(s: Array, bound: Array, rows: Array, first: int, k: int) -> Pairs:
    """Pairs of the points `rows` with those from `first` on whose s [m, columns] reach bound [m].

    Where too many do, as duplicates do, the `MAX_CANDIDATES_PER_K` k largest of each row.
    """
    at = np.flatnonzero(s >= bound[:, None])
    columns, most = s.shape[1], MAX_CANDIDATES_PER_K * k
    if len(at) > most * len(s):
        largest = np.argpartition(s, -most, axis=1)[:, -most:]
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
