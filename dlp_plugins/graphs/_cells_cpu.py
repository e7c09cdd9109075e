"""Approximate search by cells: as an inverted file, but with a matrix product for each cell.

An inverted file takes one query after another through its cells. Here each cell takes all its
queries at once: the product of a block of queries with the cell's points runs at the machine's full
speed. A point's own cell comes first and gives a lower bound on its k-th similarity, against which
the other cells' similarities are compared, so that few have to be kept.
"""

from __future__ import annotations

from collections.abc import Iterator

import faiss
import numpy as np

from dlp_plugins.graphs._select import Array, Pairs, nearest, restore_order
from dlp_plugins.graphs._threads import chunks, parallel

ROWS = 1024  # queries in a block
ITERATIONS = 6  # of k-means; more hardly changes recall
TRAIN = 64  # points a cell that k-means sees


def search(v: Array, k: int, size: int, probes: int, seed: int) -> tuple[Array, Array]:
    """The k nearest of each row of v [n, d] float32, itself included, among its `probes` cells.

    Returns:
        indices [n, k] int32 and similarities [n, k] float32; -1 and -inf where cells held fewer.
    """
    n = len(v)
    centers = _centers(v, max(1, n // size), seed)
    looked_into, home = _nearest_cells(v, centers, min(probes, len(centers)))
    # Points of a cell side by side: cell c holds v[order][start[c] : start[c + 1]].
    order = np.argsort(home, kind="stable").astype(np.int32)
    start = np.concatenate([[0], np.bincount(home, minlength=len(centers)).cumsum()])
    indices, similarities, _ = nearest(_candidates(v[order], looked_into[order], start, k), n, k)
    return restore_order(order, indices, similarities)


def _centers(v: Array, cells: int, seed: int) -> Array:
    """Unit centres [cells, d] of spherical k-means."""
    kmeans = faiss.Kmeans(
        v.shape[1], cells, niter=ITERATIONS, spherical=True, seed=seed + 1,
        max_points_per_centroid=TRAIN, min_points_per_centroid=1,
    )  # fmt: skip
    kmeans.train(v)
    return np.asarray(kmeans.centroids)


def _nearest_cells(v: Array, centers: Array, probes: int) -> tuple[Array, Array]:
    """Each point's nearest cells [n, probes] and the very nearest [n], int32."""

    def block(rows: slice) -> Pairs:
        s = v[rows] @ centers.T
        return _pairs_above(s, _kth_at_least(s, probes), np.arange(rows.start, rows.stop))

    pairs = parallel(block, chunks(len(v), ROWS))
    cells, similarities, _ = nearest(pairs, len(v), probes)
    best = similarities.argmax(axis=1)[:, None]
    return cells, np.take_along_axis(cells, best, axis=1)[:, 0]


def _pairs_above(s: Array, bound: Array, rows: Array, first_column: int = 0) -> Pairs:
    """Entries of s that reach the bound [len(s)] of their row."""
    at = np.flatnonzero(s >= bound[:, None])
    i, j = np.divmod(at.astype(np.int32), np.int32(s.shape[1]))
    return Pairs(rows[i].astype(np.int32), j + np.int32(first_column), s.reshape(-1)[at])


def _candidates(v: Array, looked_into: Array, start: Array, k: int) -> Iterator[Pairs]:
    """Pairs whose similarity is at least the query's k-th largest in its own cell."""
    n, probes = looked_into.shape
    cells = len(start) - 1
    visits = np.argsort(looked_into.reshape(-1), kind="stable")
    visit_start = np.concatenate([[0], np.bincount(looked_into.reshape(-1)).cumsum()])
    bound = np.full(n, -np.inf, np.float32)

    def own_cell(cell: int) -> None:
        members = slice(start[cell], start[cell + 1])
        for rows in chunks(members.stop - members.start, ROWS):
            own = slice(members.start + rows.start, members.start + rows.stop)
            bound[own] = _kth_at_least(v[own] @ v[members].T, k)

    def one_cell(cell: int) -> list[Pairs]:
        found = []
        members = v[start[cell] : start[cell + 1]]
        queries = visits[visit_start[cell] : visit_start[cell + 1]] // probes
        for rows in chunks(len(queries) if len(members) else 0, ROWS):
            block = queries[rows]
            s = v[block] @ members.T
            found.append(_pairs_above(s, bound[block], block, start[cell]))
        return found

    for _ in parallel(own_cell, range(cells)):
        pass
    for found in parallel(one_cell, range(cells)):
        yield from found


def _kth_at_least(s: Array, k: int) -> Array:
    """For each row of s a bound that k of its entries reach; -inf where it has too few.

    The k-th largest of the maxima of some 4 k groups: a little low, and much faster to find.
    """
    if s.shape[1] < k:
        return np.full(len(s), -np.inf, np.float32)
    group = max(1, s.shape[1] // (4 * k))
    whole = s.shape[1] // group
    maxima = s[:, : whole * group].reshape(len(s), group, whole).max(axis=1)
    return np.sort(maxima, axis=1)[:, -k]
