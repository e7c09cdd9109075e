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
from dataclasses import dataclass
from itertools import starmap
from typing import Any, Protocol

import numpy as np
import torch

from dlp_plugins._threads import length, parallel, row_slices, slices
from dlp_plugins.graphs._kmeans import Centroids, find_centroids
from dlp_plugins.graphs._top_k import Array, Nearest, Pairs, nearest
from dlp_plugins.graphs._upper_bound import (
    ROUNDING,
    ShortVectors,
    products_at,
    short_vectors,
    tail_share,
)
from dlp_plugins.processes.group import ALONE, Processes

MAX_GROUP_POINTS = 2**16  # largest group of query points
MIN_GROUPS = 8  # fewest groups, so that every thread has work
BLOCK_ENTRIES = 2**20  # similarities in one product
MAX_BLOCK_ROWS = 4096  # query points in one product with all centroids
BLOCKS_PER_CONFIRM = 32  # products of short vectors whose survivors are compared in full together
MAX_CANDIDATES_PER_K = 16  # of one point in one cell; only duplicates reach this
FIRST_ROUND_CELLS = 2  # cells that give a point its bound for all others
PROBED_FAMILIES = 24  # families of cells among which a point's cells are chosen
FAMILY_ROWS = 2**15  # points that one thread finds the cells of together, where these have families
TAKEN_ROWS = 2**16  # rows that one thread puts into another order at once


class MakeArray(Protocol):
    """Makes an array, in memory or in a file."""

    def __call__(self, name: str, dtype: Any, shape: tuple[int, ...], /) -> Array: ...


def in_memory(name: str, dtype: Any, shape: tuple[int, ...], /) -> Array:
    return np.empty(shape, dtype)


@dataclass(frozen=True)
class CellLists:
    """All points, those of a cell side by side: cell c holds the points start[c] : start[c + 1].

    v: [n, d] float32.
    short: their short vectors, or None where those would rule out too little.
    cell_of: [n], the cell of each point.
    start: [cells + 1].
    """

    v: Array
    short: ShortVectors | None
    cell_of: Array
    start: Array

    @property
    def compared(self) -> Array:
        """[n, h] vectors whose products are no less than the similarities: short ones, or v."""
        return self.v if self.short is None else self.short.values

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
    cells, probed, order = make_cells(v, k, size, probes, seed)
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


def groups_of(n: int, least: int = 1) -> list[slice]:
    """Groups of n query points that are searched for together: `MIN_GROUPS` or `least` at least."""
    return list(slices(n, min(MAX_GROUP_POINTS, 1 + n // max(MIN_GROUPS, least))))


def make_cells(
    v: Array, k: int, size: int, probes: int, seed: int, make: MakeArray = in_memory
) -> tuple[CellLists, Array, Array]:
    """The points v [n, d] float32 in cells of about `size`.

    make: where the arrays of all points are made.

    Returns:
        The cells; the cells that each point probes [n, probes] int32, points in the order of the
        cells; that order [n] int32.
    """
    n, d = v.shape
    short = short_vectors(v, k)
    near = v if short is None else short.heads
    # a cell with fewer than k points bounds nothing
    centroids = find_centroids(near, max(1, n // max(size, 4 * k)), seed)
    found = _nearest_cells(near, centroids, min(probes, len(centroids.values)))
    del near
    order = make("order", np.int32, (n,))
    order[:] = np.argsort(found[:, 0], kind="stable")
    probed = _take(found, order, make("probed", np.int32, found.shape))
    del found
    cell_of = probed[:, 0]
    cells = CellLists(
        _take(v, order, make("v", np.float32, (n, d))),
        None
        if short is None
        else ShortVectors(
            _take(short.values, order, make("short", np.float32, short.values.shape))
        ),
        cell_of,
        np.searchsorted(cell_of, np.arange(len(centroids.values) + 1)),
    )
    return cells, probed, order


def _take(x: Array, order: Array, out: Array) -> Array:
    """x[order], on all threads, into `out`."""

    def block(rows: slice) -> None:
        np.take(x, order[rows], axis=0, out=out[rows], mode="clip")  # else it goes by a buffer

    for _ in parallel(block, slices(len(order), TAKEN_ROWS)):
        pass
    return out


def _nearest_cells(v: Array, centroids: Centroids, probes: int) -> Array:
    """Each point's nearest cells [n, probes] int32, in ascending distance."""
    probed = np.empty((len(v), probes), np.int32)

    def block(rows: slice) -> None:
        probed[rows] = _nearest_columns(v[rows] @ centroids.values.T, probes)

    def by_family(rows: slice) -> None:
        probed[rows] = _nearest_by_family(v[rows], centroids, probes)

    if centroids.families is None:
        blocks = row_slices(len(v), len(centroids.values), BLOCK_ENTRIES, MAX_BLOCK_ROWS)
        work = block
    else:
        blocks, work = slices(len(v), FAMILY_ROWS), by_family
    for _ in parallel(work, blocks):
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
    """As `_nearest_cells`, among the cells of the nearest families alone."""
    families, start = centroids.families, centroids.start
    assert families is not None
    assert start is not None
    near = _nearest_columns(v @ families.T, min(PROBED_FAMILIES, len(families)))
    cells = CellLists(centroids.values, None, np.empty(0), start)
    own, bound = _own_cells(cells, v, near[:, 0], probes)
    others = _candidates(cells, v, v, near[:, 1:], bound, probes)
    return _by_rank(nearest([own, *others], len(v), probes, share=map))


def search_for(cells: CellLists, rows: slice, probed: Array, k: int) -> Nearest:
    """The k nearest of the m points `rows` in the cells that each probes [m, probes]."""
    own, bound = _own_cells(cells, cells.v[rows], cells.cell_of[rows], k)
    queries = cells.compared[rows]
    if cells.short is not None:
        queries = queries.copy()
        queries[:, -1] *= tail_share(queries, cells.short.values, own)
    v = cells.v[rows]
    second = _candidates(cells, v, queries, probed[:, 1:FIRST_ROUND_CELLS], bound, k)
    found = nearest([own, *second], len(queries), k, share=map)
    bound = found.similarities.min(axis=1)
    others = _candidates(cells, v, queries, probed[:, FIRST_ROUND_CELLS:], bound, k)
    return nearest([found.pairs(), *others], len(queries), k, share=map)


def _own_cells(cells: CellLists, v: Array, cell_of: Array, k: int) -> tuple[Pairs, Array]:
    """Pairs of each of the points v [m, d] with those of its cell, cell_of [m].

    Also a bound [m] that some k of those reach.
    """
    found, bounds = [], np.empty(len(v), np.float32)
    for cell, block in _probes_by_cell(cells, cell_of[:, None]):
        members = cells.members(cell)
        s = v[block] @ cells.v[members].T
        # the k-th itself must reach it when its similarity is computed by another product
        bounds[block] = _kth_at_least(s, k) - ROUNDING
        found.append(_reaching(s, bounds[block], block, members.start, k))
    return _joined(found), bounds


def _candidates(
    cells: CellLists, v: Array, queries: Array, probed: Array, bound: Array, k: int
) -> Iterator[Pairs]:
    """Pairs of the points v [m, d] with others, in the cells they probe, that reach the bound.

    queries: [m, h] vectors whose products with cells.compared are no less than the similarities.
    probed: [m, probes].
    bound: [m].
    """
    limit = bound if cells.short is None else bound - ROUNDING

    def reaching(cell: int, block: Array) -> Pairs:
        members = cells.members(cell)
        s = queries[block] @ cells.compared[members].T
        return _reaching(s, limit[block], block, members.start, k)

    blocks = list(_probes_by_cell(cells, probed))
    for some in slices(len(blocks), BLOCKS_PER_CONFIRM):
        pairs = _joined(list(starmap(reaching, blocks[some])))
        yield pairs if cells.short is None else _confirmed(v, cells.v, pairs, bound)


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


def _confirmed(a: Array, b: Array, pairs: Pairs, bound: Array) -> Pairs:
    """Those of the pairs, of a [m, d] with b [n, d], whose similarity reaches the bound [m]."""
    runs = np.flatnonzero(np.diff(pairs.rows, prepend=-1))  # pairs of the same row side by side
    row_starts = np.append(runs, len(pairs.rows)).astype(np.int32)
    similarities = products_at(a[pairs.rows[runs]], b, row_starts, pairs.cols)
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
