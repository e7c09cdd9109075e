"""Exact nearest neighbours: blocked products on a CPU, blockwise top-k on a GPU."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlp_plugins.graph import Neighbors
from dlp_plugins.graphs import _exact_cpu
from dlp_plugins.graphs._blockwise import search_blockwise
from dlp_plugins.graphs.contract import GraphBuilder, K, clip_k, no_neighbors
from dlp_plugins.processes.group import ALONE, Processes
from dlp_plugins.registry import graphs


@graphs.register("exact")
@dataclass(frozen=True)
class Exact(GraphBuilder):
    """The true neighbours, every pair compared. For up to some 100,000 points on a CPU.

    Time grows as n^2; for more points choose `cells`, whose work per point hardly grows.
    """

    k: K = 50
    exact = True

    def neighbors(self, descriptors: Tensor) -> Neighbors:
        return self.neighbors_together(descriptors, ALONE)

    def neighbors_together(self, descriptors: Tensor, processes: Processes) -> Neighbors:
        k = clip_k(self.k, descriptors)
        if k == 0:
            return no_neighbors(descriptors)
        if descriptors.device.type != "cpu":
            return search_blockwise(descriptors, k, processes=processes)
        v = descriptors.contiguous().numpy()
        indices, similarities, order = _exact_cpu.search(v, k, processes)
        return Neighbors(
            torch.from_numpy(indices),
            torch.from_numpy(similarities),
            None if order is None else torch.from_numpy(order),
        )
