"""The search by cells in torch, for a GPU: cells padded to one size and compared in batches.

As `_cells_cpu` one probe after another: all points that probe a cell are compared with its members
in one product, and what is found joins each point's best so far. The device is waited for once, for
the sizes of the cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name for it
from torch import Tensor

from dlp_plugins._threads import slices
from dlp_plugins.graph import Neighbors, read_host
from dlp_plugins.graphs._kmeans import ITERATIONS, TRAINING_POINTS_PER_CELL
from dlp_plugins.graphs._top_k import Array

TILE_ENTRIES = 2**27  # numbers held at once: 0.5 GiB of float32


def search_cells(
    descriptors: Tensor, k: int, size: int, probes: int, seed: int, entries: int = TILE_ENTRIES
) -> Neighbors:
    """The k nearest others of each point among the members of its `probes` nearest cells.

    descriptors: [n, d] float32 of unit norm; 0 < k < n. size: points per cell on average.
    entries: similarities, or numbers of descriptors, that are held at once.
    """
    v, (n, d) = descriptors, descriptors.shape
    centroids = _centroids(v, max(1, n // max(size, 4 * k)), seed, entries)
    probed = _nearest_cells(v, centroids, min(probes, len(centroids)), entries)
    points = [_by_cell(cells, len(centroids)) for cells in probed.T]  # that probe each cell
    sizes = read_host(torch.stack([p.counts for p in points]))
    orders = (-sizes).argsort(axis=1, kind="stable")
    by_size = torch.from_numpy(orders).to(v.device)

    # row n takes what padding writes
    best = v.new_full((n + 1, k), -torch.inf)
    places = torch.full((n + 1, k), -1, dtype=torch.int32, device=v.device)
    for probe, (asking, order) in enumerate(zip(points, orders, strict=True)):
        for batch in _batches(sizes[probe][order], sizes[0][order], d, entries):
            cells = by_size[probe, batch.cells]
            q = asking.rows(cells, batch.first, batch.queries)
            m = points[0].rows(cells, 0, batch.members)
            tile = v[q.clamp(max=n - 1)] @ v[m.clamp(max=n - 1)].mT
            no_pair = (m == n)[:, None, :] | (q[:, :, None] == m[:, None, :])
            found, at = tile.masked_fill_(no_pair, -torch.inf).topk(min(k, batch.members))
            where = m[:, None, :].expand(-1, batch.queries, -1).gather(2, at).int()
            best[q], chosen = torch.cat([best[q], found], dim=2).topk(k)
            places[q] = torch.cat([places[q], where], dim=2).gather(2, chosen)
    nothing = best[:n] == -torch.inf
    return Neighbors(
        places[:n].masked_fill(nothing, -1), best[:n].masked_fill(nothing, 0.0), points[0].order
    )


class _Points(NamedTuple):
    """Points sorted by cell. order: [n]. starts, counts: [cells], where each cell's begin."""

    order: Tensor
    starts: Tensor
    counts: Tensor

    def rows(self, cells: Tensor, first: int, width: int) -> Tensor:
        """[cells, width]: of each cell the points from its `first` on; n where it has fewer."""
        n, at = len(self.order), first + torch.arange(width, device=self.order.device)
        found = self.order[(self.starts[cells, None] + at).clamp(max=n - 1)]
        return torch.where(at < self.counts[cells, None], found, n)


def _by_cell(cell_of: Tensor, cells: int) -> _Points:
    order = cell_of.argsort(stable=True)
    # not bincount, which waits for the device
    bounds = torch.searchsorted(cell_of[order], torch.arange(cells + 1, device=cell_of.device))
    return _Points(order, bounds[:-1], bounds.diff())


def _centroids(v: Tensor, cells: int, seed: int, entries: int) -> Tensor:
    """Unit centroids [cells, d] of spherical k-means on some of the points."""
    chosen = torch.randperm(len(v), generator=torch.Generator().manual_seed(seed))
    points = v[chosen[: cells * TRAINING_POINTS_PER_CELL].to(v.device)]
    centroids = points[:cells]
    for _ in range(ITERATIONS):
        own = _by_cell(_nearest_cells(points, centroids, 1, entries)[:, 0], cells)
        # unlike index_add_, it adds in the same order at every call
        sums = torch.segment_reduce(points[own.order], "sum", lengths=own.counts, unsafe=True)
        centroids = torch.where(own.counts[:, None] > 0, F.normalize(sums), centroids)
    return centroids


def _nearest_cells(v: Tensor, centroids: Tensor, probes: int, entries: int) -> Tensor:
    """Each point's nearest cells [n, probes], the nearest first."""
    blocks = (v[own] @ centroids.T for own in slices(len(v), max(1, entries // len(centroids))))
    return torch.cat([block.topk(probes, dim=1).indices for block in blocks])


class _Batch(NamedTuple):
    """Cells compared in one product: of each `queries` points from its `first` on."""

    cells: slice
    first: int
    queries: int
    members: int


def _batches(queries: Array, members: Array, dim: int, entries: int) -> Iterator[_Batch]:
    """Cells side by side, as many as `entries` allows; a cell that is too large, in parts.

    queries, members: [cells], points of each cell; queries from the largest on.
    """
    start, end = 0, int((queries > 0).sum())
    while start < end:
        most, width, stop = int(queries[start]), 1, start
        while stop < end:
            wider = max(width, int(members[stop]))
            if (
                stop > start
                and (stop + 1 - start) * max(most * wider, (most + wider) * dim) > entries
            ):
                break
            width, stop = wider, stop + 1
        part = most if stop > start + 1 else min(most, max(1, entries // max(width, dim)))
        for first in range(0, most, part):
            yield _Batch(slice(start, stop), first, min(part, most - first), width)
        start = stop
