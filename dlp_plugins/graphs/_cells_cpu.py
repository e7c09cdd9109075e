"""Approximate search by cells: as an inverted file, but with a matrix product for each cell.

An inverted file takes one query after another through its cells. Here each cell takes all its
queries at once: the product of a block of queries with the cell's points runs at the machine's full
speed. A point's own cell gives a lower bound on its k-th similarity, its two nearest cells a nearly
final one; the other cells' similarities are compared with that, so that few have to be kept. Where
descriptors lie near few dimensions all this is done with short vectors (`_screen.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import numpy as np

from dlp_plugins._threads import chunks, parallel
from dlp_plugins.graphs._order import centers
from dlp_plugins.graphs._screen import ROUNDING, confirm, heads, screen
from dlp_plugins.graphs._select import Array, Pairs, nearest, restore_order

ROWS = 1024  # queries in a block
FIRST = 2  # cells looked into first, to know which of the others' points are worth keeping


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
    home = looked_into[:, 0]
    # Points of a cell side by side: cell c holds v[order][start[c] : start[c + 1]].
    order = np.argsort(home, kind="stable").astype(np.int32)
    start = np.concatenate([[0], np.bincount(home, minlength=len(middle)).cumsum()])
    by_cell, looked_into = v[order], looked_into[order]
    short = by_cell if short is v else short[order]
    bound = _own_cell_bound(by_cell, start, k)
    found = nearest(_candidates(by_cell, short, looked_into[:, :FIRST], start, bound), n, k)
    if probes > FIRST:
        bound = found.similarities.min(axis=1)
        others = _candidates(by_cell, short, looked_into[:, FIRST:], start, bound)
        found = nearest(chain([found.pairs()], others), n, k)
    return *restore_order(order, found.indices, found.similarities), order


def _nearest_cells(v: Array, middle: Array, probes: int) -> Array:
    """Each point's nearest cells [n, probes] int32, in ascending distance."""

    def block(rows: slice) -> Pairs:
        s = v[rows] @ middle.T
        at = _reaching(s, _kth_at_least(s, probes))
        return _pairs(at, s.reshape(-1).take(at), np.arange(rows.start, rows.stop), 0, len(middle))

    pairs = parallel(block, chunks(len(v), ROWS))
    found = nearest(pairs, len(v), probes)
    by_rank = np.argsort(-found.similarities, axis=1)
    return np.take_along_axis(found.indices, by_rank, axis=1)


def _own_cell_bound(v: Array, start: Array, k: int) -> Array:
    """[n] what the k-th largest similarity of each point is at least, from its own cell."""
    bound = np.full(len(v), -np.inf, np.float32)

    def own_cell(cell: int) -> None:
        members = slice(start[cell], start[cell + 1])
        for rows in chunks(members.stop - members.start, ROWS):
            own = slice(members.start + rows.start, members.start + rows.stop)
            # the k-th itself must reach it when `confirm` computes it anew
            bound[own] = _kth_at_least(v[own] @ v[members].T, k) - ROUNDING

    for _ in parallel(own_cell, range(len(start) - 1)):
        pass
    return bound


def _candidates(
    v: Array, short: Array, looked_into: Array, start: Array, bound: Array
) -> Iterator[Pairs]:
    """Pairs of each point with others in the cells it looks into [n, m] that reach its bound [n].

    short: vectors whose inner products are no less than those of v, or v itself.
    """
    probes = looked_into.shape[1]
    cells = len(start) - 1
    visits = np.argsort(looked_into.reshape(-1), kind="stable")
    visit_start = np.bincount(looked_into.reshape(-1), minlength=cells).cumsum()
    visit_start = np.concatenate([[0], visit_start])

    def one_cell(cell: int) -> list[Pairs]:
        found = []
        members = slice(start[cell], start[cell + 1])
        queries = visits[visit_start[cell] : visit_start[cell + 1]] // probes
        for rows in chunks(len(queries) if members.stop > members.start else 0, ROWS):
            block = queries[rows]
            s = short[block] @ short[members].T
            if short is v:
                at = _reaching(s, bound[block])
                similarities = s.reshape(-1).take(at)
            else:
                at = _reaching(s, bound[block] - ROUNDING)
                at, similarities = confirm(v[block], v[members], at, bound[block])
            found.append(_pairs(at, similarities, block, members.start, s.shape[1]))
        return found

    for found in parallel(one_cell, range(cells)):
        yield from found


def _reaching(s: Array, bound: Array) -> Array:
    """Where s, counted along the rows, reaches the bound [len(s)] of its row."""
    return np.flatnonzero(s >= bound[:, None])


def _pairs(at: Array, similarities: Array, rows: Array, first: int, columns: int) -> Pairs:
    """Places in a product of the points `rows` with `columns` others from `first` on, as pairs."""
    i, j = np.divmod(at.astype(np.int32), np.int32(columns))
    return Pairs(rows.take(i).astype(np.int32), j + np.int32(first), similarities)


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
