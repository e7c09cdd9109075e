"""Neighbour lists of rows that are shared among processes, found by cells.

Points are counted in the order of their cells, so that most neighbours of a process's rows are its
own. The search is that of `graphs.cells` by whole descriptors: 8 bits or short vectors would need
those of all points in every process.

Shapes: m points, d numbers each, k neighbours; this process has p of the points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from dlp_plugins._threads import length, parallel
from dlp_plugins.embeddings.memory import SAMPLE_PART
from dlp_plugins.embeddings.sharded_points import FileRows
from dlp_plugins.graph import Neighbors
from dlp_plugins.graphs._approximate import MAX_ALL_PAIRS_POINTS
from dlp_plugins.graphs._cells_cpu import (
    CellLists,
    groups_of,
    nearest_cells,
    number_of_cells,
    search_for,
)
from dlp_plugins.graphs._compared import Whole
from dlp_plugins.graphs._kmeans import TRAINING_POINTS_PER_CELL, Centroids, find_centroids
from dlp_plugins.graphs._top_k import Array
from dlp_plugins.graphs.cells import Cells
from dlp_plugins.graphs.contract import clip_k, drop_self
from dlp_plugins.processes.group import Processes
from dlp_plugins.processes.rows import RowExchange


@dataclass(frozen=True)
class SharedCells:
    """Which points lie in which cells.

    order: [m] int64, the points of a cell side by side.
    start: [cells + 1]: cell c holds the points start[c] : start[c + 1] of that order.
    probed: [p, probes], the cells that each of this process's points of that order probes.
    """

    order: Array
    start: Array
    probed: Array


def find_cells(rows: FileRows, builder: Cells, processes: Processes) -> SharedCells:
    """Cells of the rows [m, d] in the order of the file; the same in all processes."""
    m = len(rows)
    shares = processes.shares(m)
    mine = shares[processes.rank]
    k = clip_k(builder.k, rows) + 1
    cells = 1 if m <= MAX_ALL_PAIRS_POINTS else number_of_cells(m, k, builder.size)
    centroids = processes.once(lambda: _centroids(rows, cells, builder.seed, processes.size))
    own = FileRows(rows.file, rows.numbers[mine], rows.change)
    probes = min(builder.probes, len(centroids.values))
    probed = torch.from_numpy(nearest_cells(own.as_array(), centroids, probes))
    cell_of = processes.gather_shares(probed[:, 0].contiguous(), m).numpy()
    order = np.argsort(cell_of, kind="stable")
    start = np.searchsorted(cell_of[order], np.arange(len(centroids.values) + 1))
    # this process's points of the new order were other processes' of the old one
    exchange = RowExchange.plan(processes, shares, torch.from_numpy(order[mine]))
    return SharedCells(order, start, exchange.fetch(probed).numpy())


def _centroids(rows: FileRows, cells: int, seed: int, parts: int) -> Centroids:
    m = len(rows)
    most = min(m, TRAINING_POINTS_PER_CELL * cells, max(cells, m // max(SAMPLE_PART, parts)))
    chosen = np.sort(np.random.default_rng(seed).choice(m, most, replace=False))
    return find_centroids(rows[chosen], cells, seed)


def find_lists(
    rows: FileRows, made: SharedCells, builder: Cells, processes: Processes,
    tick: Callable[[int], None],
) -> Neighbors:  # fmt: skip
    """The nearest others of this process's points: [p, k], counted in the order of the cells.

    Args:
        rows: [m, d], in that order.
        tick: called with the number of points done, of all processes if they are as fast.
    """
    m, mine = len(rows), processes.share(len(rows))
    k = clip_k(builder.k, rows)
    indices = torch.empty(length(mine), k, dtype=torch.int32)
    similarities = torch.empty(length(mine), k)
    cell_of = np.repeat(np.arange(len(made.start) - 1, dtype=np.int32), np.diff(made.start))
    held = rows.as_array()
    cells = CellLists(held, np.arange(m, dtype=np.int32), Whole(held), cell_of, made.start)

    def group(own: slice) -> int:
        first = mine.start + own.start
        found = search_for(cells, slice(first, mine.start + own.stop), made.probed[own], k + 1)
        nearest = torch.from_numpy(found.indices), torch.from_numpy(found.similarities)
        others = drop_self(*nearest, first=first)
        indices[own] = others.indices
        similarities[own] = others.similarities.masked_fill(others.indices < 0, 0.0)
        return length(own)

    done = 0
    for count in parallel(group, groups_of(length(mine))):
        done += count
        tick(min(m, done * processes.size))
    return Neighbors(indices, similarities)
