"""Exact search by torch on any device: tiles of V V^T with a running top-k, never n x n."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dlp_plugins._threads import length, row_slices, slices
from dlp_plugins.graph import Neighbors
from dlp_plugins.processes.group import ALONE, Processes

TILE_ENTRIES = 2**28  # similarities held at once: 1 GiB of float32


def search_blockwise(
    descriptors: Tensor, k: int, entries: int = TILE_ENTRIES, processes: Processes = ALONE
) -> Neighbors:
    """Tiles of V V^T, each reduced to its rows' k largest, which join the best so far.

    Square tiles of `entries` numbers at most: few rows of a million columns would read all
    descriptors for little work, and top-k of so long a row is slow on a GPU.

    descriptors: [n, d] float32; 0 < k < n.
    processes: each takes its share of the rows; all get all.
    """
    n = len(descriptors)
    width = min(n, max(1, math.isqrt(entries)))
    indices = torch.empty(n, k, dtype=torch.int32, device=descriptors.device)
    similarities = torch.empty(n, k, dtype=descriptors.dtype, device=descriptors.device)
    mine, counts = processes.share_blocks(list(row_slices(n, width, entries)), length)
    for rows in mine:
        best, places = similarities[rows].fill_(-torch.inf), indices[rows].zero_()
        for columns in slices(n, width):
            tile = descriptors[rows] @ descriptors[columns].T
            _leave_out_self(tile, rows, columns)
            found, at = tile.topk(min(k, tile.shape[1]), dim=1, sorted=False)
            both = torch.cat([best, found], dim=1)
            where = torch.cat([places, (at + columns.start).int()], dim=1)
            best, chosen = both.topk(k, dim=1, sorted=False)
            places = where.gather(1, chosen)
        similarities[rows], indices[rows] = best, places
    if processes.alone:
        return Neighbors(indices, similarities)
    own = slice(mine[0].start, mine[-1].stop) if mine else None
    return Neighbors(
        processes.gather_rows(None if own is None else indices[own], counts),
        processes.gather_rows(None if own is None else similarities[own], counts),
    )


def _leave_out_self(tile: Tensor, rows: slice, columns: slice) -> None:
    """A point is not its own neighbour: -inf where row and column are the same point."""
    first, last = max(rows.start, columns.start), min(rows.stop, columns.stop)
    if first < last:
        own = tile[first - rows.start : last - rows.start, first - columns.start :]
        own.diagonal().fill_(-torch.inf)
