"""Exact nearest neighbours: FAISS flat search on a CPU, blockwise torch top-k on a GPU."""

from __future__ import annotations

from dataclasses import dataclass

import faiss
import numpy as np
import torch
from torch import Tensor

from dlp_plugins.graph import Neighbors
from dlp_plugins.graphs.contract import GraphBuilder, K
from dlp_plugins.registry import graphs

# Similarities held at once on a GPU: 2^28 float32 = 1 GiB.
BLOCK_ENTRIES = 2**28


@graphs.register("exact")
@dataclass(frozen=True)
class Exact(GraphBuilder):
    """Every pair is compared. FAISS flat on CPU; blocks of V V^T and top-k on GPU, never n x n."""

    k: K = 50
    exact = True

    def neighbors(self, descriptors: Tensor) -> Neighbors:
        k = min(self.k, len(descriptors) - 1)
        if descriptors.device.type == "cpu":
            return search_faiss(descriptors, k)
        return search_blockwise(descriptors, k)


def search_faiss(descriptors: Tensor, k: int) -> Neighbors:
    """FAISS's exact inner-product search on the CPU."""
    v = np.ascontiguousarray(descriptors.numpy(), dtype=np.float32)
    index = faiss.IndexFlatIP(v.shape[1])
    index.add(v)  # type: ignore[call-arg]
    similarities, indices = index.search(v, k + 1)  # type: ignore[call-arg]
    return drop_self(torch.from_numpy(indices), torch.from_numpy(similarities))


def search_blockwise(descriptors: Tensor, k: int) -> Neighbors:
    """Blocks of rows of V V^T, each reduced to its top k before the next one is made."""
    n = len(descriptors)
    rows = max(1, BLOCK_ENTRIES // n)
    indices = torch.empty(n, k, dtype=torch.long, device=descriptors.device)
    similarities = torch.empty(n, k, dtype=descriptors.dtype, device=descriptors.device)
    for start in range(0, n, rows):
        block = descriptors[start : start + rows] @ descriptors.T
        block.diagonal(offset=start).fill_(-torch.inf)  # a point is not its own neighbour
        stop = start + len(block)
        similarities[start:stop], indices[start:stop] = block.topk(k, dim=1)
    return Neighbors(indices, similarities)


def drop_self(indices: Tensor, similarities: Tensor) -> Neighbors:
    """Drop each point from its own list of k + 1, by identity; else drop the last.

    With duplicates a point need not come first in its own list, nor be in it at all.
    """
    n, width = indices.shape
    is_self = indices == torch.arange(n, device=indices.device)[:, None]
    is_self[:, -1] |= ~is_self.any(dim=1)
    keep = ~is_self
    return Neighbors(
        indices[keep].reshape(n, width - 1), similarities[keep].reshape(n, width - 1)
    )
