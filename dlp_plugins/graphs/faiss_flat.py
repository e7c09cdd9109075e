"""FAISS's flat index: the usual exact search."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import faiss
import torch
from torch import Tensor

from dlp_plugins.graph import Neighbors
from dlp_plugins.graphs import _faiss_gpu
from dlp_plugins.graphs._blockwise import search_blockwise
from dlp_plugins.graphs.contract import GraphBuilder, K, clip_k, drop_self, no_neighbors
from dlp_plugins.registry import graphs


@graphs.register("faiss_flat")
@dataclass(frozen=True)
class FaissFlat(GraphBuilder):
    """FAISS's exact search, CPU or GPU. `exact` gives the same, several times faster on a CPU.

    On a GPU it needs FAISS's GPU build (extra `gpu`); where that does not work on the card, torch
    searches instead, with a warning.
    """

    k: K = 50
    exact = True

    def neighbors(self, descriptors: Tensor) -> Neighbors:
        k = clip_k(self.k, descriptors)
        if k == 0:
            return no_neighbors(descriptors)
        index: faiss.Index = faiss.IndexFlatIP(descriptors.shape[1])
        if descriptors.device.type != "cpu":
            if reason := _faiss_gpu.why_not():
                warnings.warn(
                    f"FAISS cannot search on this GPU ({reason}); torch searches instead, also "
                    "exactly. Choose graph 'exact' to avoid this warning.",
                    stacklevel=2,
                )
                return search_blockwise(descriptors, k)
            index = faiss.index_cpu_to_gpu(
                faiss.StandardGpuResources(), descriptors.device.index or 0, index
            )
        v = descriptors.cpu().contiguous().numpy()
        index.add(v)
        similarities, indices = index.search(v, k + 1)
        found = drop_self(torch.from_numpy(indices), torch.from_numpy(similarities))
        return Neighbors(
            found.indices.to(descriptors.device), found.similarities.to(descriptors.device)
        )
