"""Exact search by torch on any device: blocks of V V^T and top-k, never n x n."""

from __future__ import annotations

import torch
from torch import Tensor

from dlp_plugins.graph import Neighbors

BLOCK_ENTRIES = 2**28  # similarities held at once: 1 GiB of float32


def search_blockwise(descriptors: Tensor, k: int, entries: int = BLOCK_ENTRIES) -> Neighbors:
    """Rows of V V^T, `entries` numbers at once, reduced to the k largest of each before the next.

    descriptors: [n, d] float32; 0 < k < n.
    """
    n = len(descriptors)
    indices = torch.empty(n, k, dtype=torch.int32, device=descriptors.device)
    similarities = torch.empty(n, k, dtype=descriptors.dtype, device=descriptors.device)
    for start in range(0, n, max(1, entries // n)):
        rows = slice(start, min(start + max(1, entries // n), n))
        block = descriptors[rows] @ descriptors.T
        block.diagonal(offset=start).fill_(-torch.inf)  # a point is not its own neighbour
        similarities[rows], top = block.topk(k, dim=1, sorted=False)
        indices[rows] = top.int()
    return Neighbors(indices, similarities)
