"""Approximate search by cells: an inverted file with a matrix product for each cell.

An inverted file takes one query after another through the cells that it probes. Here the points are
taken a group at a time, near ones together, and each cell is compared with all of the group that
probe it in one product, at the machine's full speed. Only the groups being worked on hold
candidates, and one thread takes a group from start to end. A point's own cell gives a lower bound
on its k-th similarity, its two nearest cells a nearly final one; the similarities in the other
cells are compared with that, so that few of them are kept. The other cells are compared by vectors
of 8 bits (`_eight_bits.py`) or short ones (`_upper_bound.py`), whichever is cheaper.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import starmap

import numpy as np
import torch

from dlp_plugins._threads import length, parallel, row_slices, slices
from dlp_plugins.graphs._choice import choose
from dlp_plugins.graphs._compared import ROUNDING, Compared, Whole
from dlp_plugins.graphs._eight_bits import Rounded
from dlp_plugins.graphs._kmeans import Centroids, find_centroids
from dlp_plugins.graphs._top_k import Array, Nearest, Pairs, nearest
from dlp_plugins.graphs._upper_bound import ShortVectors, lacking_share, products_at
from dlp_plugins.processes.group import ALONE, Processes

MAX_GROUP_POINTS = 2**16  # largest group of query points
MIN_GROUPS = 8  # fewest groups, so that every thread has work
BLOCK_ENTRIES = 2**20  # similarities in one product
MAX_BLOCK_ROWS = 4096  # query points in one product with all centroids
BLOCKS_PER_CONFIRM = 32  # products whose survivors are compared in full together
MAX_CANDIDATES_PER_K = 16  # of one point in one cell; only duplicates reach this
ESTIMATES_PER_SPARE = 8  # of so many estimates that are kept, one is more than is wanted
FIRST_ROUND_CELLS = 2  # cells that give a point its bound for all others
PROBED_FAMILIES = 24  # families of cells among which a point's cells are chosen
FAMILY_ROWS = 2**15  # points that one thread finds the cells of together, where these have families


Vectors = Callable[[Array], Array]
"""Vectors [b, d] of the points [b], counted among those that are searched for."""


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
    made = sort_into_cells(v, k, size, probes, seed, processes)
    order, probed = made.order, made.probed
    cells = CellLists(v, order, made.compared.rows(order), made.cell_of, made.start)
    del made
    indices, similarities = np.empty((n, k), np.int32), np.empty((n, k), np.float32)

    def group(rows: slice) -> None:
        found = search_for(cells, rows, probed[rows], k)
        original = order[rows]
        indices[original] = np.where(found.indices < 0, -1, order[found.indices])
        similarities[original] = found.similarities

    mine, counts = processes.share_blocks(groups_of(n, processes.size), length)
    for _ in parallel(group, mine):
        pass
    if not processes.alone:
        own = order[mine[0].start : mine[-1].stop] if mine else None
        for found in (indices, similarities):
            part = None if own is None else torch.from_numpy(found[own])
            found[order] = processes.gather_rows(part, counts).numpy()
    return indices, similarities, order


@dataclass(frozen=True)
class SortedPoints:
    """Which points lie in which cells.

    compared: what the points are compared by, in their own order.
    order: [n] int32, the points of a cell side by side.
    probed: [n, probes] int32, the cells that each probes, points in that order.
    start: [cells + 1]: cell c holds the points start[c] : start[c + 1] of that order.
    """

    compared: Compared
    order: Array
    probed: Array
    start: Array

    @property
    def cell_of(self) -> Array:
        return np.ascontiguousarray(self.probed[:, 0])


def sort_into_cells(
    v: Array, k: int, size: int, probes: int, seed: int, processes: Processes = ALONE
) -> SortedPoints:
    """The points v [n, d] float32 in cells of about `size`, and what to compare them by."""
    n = len(v)
    compared = choose(v, k, n * min(n, probes * size), processes=processes)
    near = compared.heads if isinstance(compared, ShortVectors) else v
    centroids = find_centroids(near, number_of_cells(n, k, size), seed)
    probed = nearest_cells(near, centroids, min(probes, len(centroids.values)))
    del near
    order = np.argsort(probed[:, 0], kind="stable").astype(np.int32)
    probed = probed[order]
    start = np.searchsorted(probed[:, 0], np.arange(len(centroids.values) + 1))
    return SortedPoints(compared, order, probed, start)


def number_of_cells(n: int, k: int, size: int) -> int:
    """Of about `size` of n points each; a cell with fewer than k points would bound nothing."""
    return max(1, n // max(size, 4 * k))


def groups_of(n: int, least: int = 1) -> list[slice]:
    """Groups of n query points that are searched for together: `MIN_GROUPS` or `least` at least."""
    return list(slices(n, min(MAX_GROUP_POINTS, 1 + n // max(MIN_GROUPS, least))))


def nearest_cells(v: Array, centroids: Centroids, probes: int) -> Array:
    """Each point's nearest cells [n, probes] int32, in ascending distance."""
    probed = np.empty((len(v), probes), np.int32)
    few = centroids.families is None

    def block(rows: slice) -> None:
        if few:
            probed[rows] = _nearest_columns(v[rows] @ centroids.values.T, probes)
        else:
            probed[rows] = _nearest_by_family(v[rows], centroids, probes)

    most = MAX_BLOCK_ROWS if few else FAMILY_ROWS
    columns = len(centroids.values) if few else 1
    entries = BLOCK_ENTRIES if few else FAMILY_ROWS
    for _ in parallel(block, row_slices(len(v), columns, entries, most)):
        pass
    return probed


def _nearest_columns(s: Array, count: int) -> Array:
    """The columns of the largest entries of each row, in descending order: [m, count] int32."""
    pairs = _reaching(s, _kth_at_least(s, count), np.arange(len(s)), 0, count)
    return _by_rank(nearest([pairs], len(s), count, share=map))


def _by_rank(found: Nearest) -> Array:
    by_rank = np.argsort(-found.similarities, axis=1)
    return np.take_along_axis(found.indices, by_rank, axis=1)


def _nearest_by_family(v: Array, centroids: Centroids, probes: int) -> Array:
    """As `nearest_cells`, among the cells of the nearest families alone."""
    families, start = centroids.families, centroids.start
    assert families is not None
    assert start is not None
    near = _nearest_columns(v @ families.T, min(PROBED_FAMILIES, len(families)))
    values = centroids.values
    cells = CellLists(values, np.arange(len(values)), Whole(values), np.empty(0), start)
    own, bound = _own_cells(cells, v.__getitem__, near[:, 0], probes)
    others = _candidates(cells, v.__getitem__, Whole(v), near[:, 1:], bound, probes)
    return _by_rank(nearest([own, *others], len(v), probes, share=map))


def search_for(cells: CellLists, rows: slice, probed: Array, k: int) -> Nearest:
    """The k nearest of the m points `rows` in the cells that each probes [m, probes]."""
    order = cells.order[rows]

    def vectors(some: Array) -> Array:
        return cells.v[order[some]]

    if isinstance(cells.compared, Rounded):
        return _search_by_estimates(cells, vectors, cells.compared.estimating(), rows, probed, k)
    known, bound = _own_cells(cells, vectors, cells.cell_of[rows], k)
    queries, others = cells.compared.rows(rows), cells.compared
    queries, others = queries.narrowed(others, lacking_share(queries, others, known))
    narrowed = replace(cells, compared=others)
    for some in (slice(1, FIRST_ROUND_CELLS), slice(FIRST_ROUND_CELLS, None)):
        more = _candidates(narrowed, vectors, queries, probed[:, some], bound, k)
        found = nearest([known, *more], len(queries), k, share=map)
        known, bound = found.pairs(), found.similarities.min(axis=1)
    return found


def _search_by_estimates(
    cells: CellLists, vectors: Vectors, others: Rounded, rows: slice, probed: Array, k: int
) -> Nearest:
    """As `search_for`, by 8 bits; of a few more than k the nearest are chosen by the descriptors.

    The error of an estimate is far smaller than the steps between the nearest few, so that full
    comparisons are needed of hardly more pairs than are found.
    """
    wanted = k + k // ESTIMATES_PER_SPARE + 1
    queries = others.rows(rows)
    bound = np.empty(len(queries), np.float32)

    def own(cell: int, block: Array) -> Pairs:
        members, some = cells.members(cell), queries.rows(block)
        s = some.similarities(some.products(others.rows(members)))
        bound[block] = _kth_at_least(s, wanted)
        return _reaching(s, bound[block], block, members.start, wanted)

    def reaching(cell: int, block: Array) -> Pairs:
        members, some = cells.members(cell), queries.rows(block)
        s = some.products(others.rows(members))
        pairs = _reaching(s, some.limits(bound[block]), block, members.start, wanted)
        return pairs._replace(similarities=queries.estimates(pairs))

    parts = list(starmap(own, _probes_by_cell(cells, probed[:, :1])))
    for some in (slice(1, FIRST_ROUND_CELLS), slice(FIRST_ROUND_CELLS, None)):
        parts += starmap(reaching, _probes_by_cell(cells, probed[:, some]))
        found = nearest(parts, len(queries), wanted, share=map)
        parts, bound = [found.pairs()], found.similarities.min(axis=1)
    pairs = parts[0]
    row_starts = np.searchsorted(pairs.rows, np.arange(len(queries) + 1)).astype(np.int32)
    every = vectors(np.arange(len(queries)))
    true = products_at(every, cells.v, row_starts, cells.order[pairs.cols])
    return nearest([pairs._replace(similarities=true)], len(queries), k, share=map)


def _own_cells(cells: CellLists, vectors: Vectors, cell_of: Array, k: int) -> tuple[Pairs, Array]:
    """Pairs of each of m points with those of its cell, cell_of [m].

    Also a bound [m] that some k of those reach.

    vectors: gives those of some of the m points.
    """
    found, bounds = [], np.empty(len(cell_of), np.float32)
    for cell, block in _probes_by_cell(cells, cell_of[:, None]):
        members = cells.members(cell)
        s = vectors(block) @ cells.v[cells.order[members]].T
        # the k-th itself must reach it when its similarity is computed by another product
        bounds[block] = _kth_at_least(s, k) - ROUNDING
        found.append(_reaching(s, bounds[block], block, members.start, k))
    return _joined(found), bounds


def _candidates(
    cells: CellLists, vectors: Vectors, queries: Compared, probed: Array, bound: Array, k: int
) -> Iterator[Pairs]:
    """Pairs of m points with others, in the cells they probe, that reach the bound.

    vectors: gives those of some of the m points.
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
        yield pairs if whole else _confirmed(cells, vectors, pairs, bound)


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


def _confirmed(cells: CellLists, vectors: Vectors, pairs: Pairs, bound: Array) -> Pairs:
    """Those of the pairs of m points with all whose similarity reaches the bound [m]."""
    by_row = np.argsort(pairs.rows, kind="stable")
    pairs = Pairs(*(part[by_row] for part in pairs))
    runs = np.flatnonzero(np.diff(pairs.rows, prepend=-1))  # pairs of the same row side by side
    row_starts = np.append(runs, len(pairs.rows)).astype(np.int32)
    similarities = products_at(
        vectors(pairs.rows[runs]), cells.v, row_starts, cells.order[pairs.cols]
    )
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
