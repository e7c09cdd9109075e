"""Cells and blocked products: the approximate search for up to millions of points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from dlp_plugins.graph import Neighbors
from dlp_plugins.graphs import _cells_cpu
from dlp_plugins.graphs._approximate import MAX_ALL_PAIRS_POINTS, ApproximateBuilder, Found, Seed
from dlp_plugins.graphs._cells_torch import search_cells
from dlp_plugins.graphs._top_k import Array
from dlp_plugins.graphs.contract import K, clip_k
from dlp_plugins.processes.group import Processes
from dlp_plugins.registry import graphs


@graphs.register("cells")
@dataclass(frozen=True)
class Cells(ApproximateBuilder):
    """k-means cells of constant size, each compared in one product with all points that probe it.

    The one to use above some 100,000 points on a CPU: the work per point grows little with n (1.6
    times from 100,000 to a million). More probes give a higher recall, and take time in proportion.
    Recall at 50,000 x 128, k = 50 (benchmarks/graph_speed.py): 0.990 to 0.995 on classes near 16
    dimensions, 0.877 on classes without structure inside. Where descriptors lie on a GPU, torch
    searches there, in cells of the same size.
    """

    k: K = 50
    size: Annotated[int, Field(ge=64, description="points per cell on average; at least 4 k")] = 512
    probes: Annotated[int, Field(ge=1, description="cells searched for each point")] = 16
    seed: Seed = 0

    def search(self, v: Array, k: int) -> Found:
        return Found(*_cells_cpu.search(v, k, self.size, self.probes, self.seed))

    def neighbors(self, descriptors: Tensor) -> Neighbors:
        on_device = descriptors.device.type != "cpu"
        if on_device and len(descriptors) > MAX_ALL_PAIRS_POINTS:
            k = clip_k(self.k, descriptors)
            return search_cells(descriptors, k, self.size, self.probes, self.seed)
        return super().neighbors(descriptors)

    def neighbors_together(self, descriptors: Tensor, processes: Processes) -> Neighbors:
        def search(v: Array, k: int) -> Found:
            settings = self.size, self.probes, self.seed
            return Found(*_cells_cpu.search(v, k, *settings, processes))

        return self._neighbors(descriptors, search)
