"""Exact search by torch on any device: blocks of V V^T and top-k, never n x n."""

from __future__ import annotations

import torch
from torch import Tensor

from dlp_plugins._threads import length, row_slices
from dlp_plugins.graph import Neighbors
from dlp_plugins.processes.group import ALONE, Processes

BLOCK_ENTRIES = 2**28  # similarities held at once: 1 GiB of float32


def search_blockwise(
    descriptors: Tensor, k: int, entries: int = BLOCK_ENTRIES, processes: Processes = ALONE
) -> Neighbors:
    """Rows of V V^T, at most `entries` numbers at once, each block reduced to the rows' k largest.

    descriptors: [n, d] float32; 0 < k < n.
    processes: each takes its share of the rows; all get all.
    """
    n = len(descriptors)
    indices = torch.empty(n, k, dtype=torch.int32, device=descriptors.device)
    similarities = torch.empty(n, k, dtype=descriptors.dtype, device=descriptors.device)
    mine, counts = processes.share_blocks(list(row_slices(n, n, entries)), length)
    for rows in mine:
        block = descriptors[rows] @ descriptors.T
        block.diagonal(offset=rows.start).fill_(-torch.inf)  # a point is not its own neighbour
        similarities[rows], top = block.topk(k, dim=1, sorted=False)
        indices[rows] = top.int()
    if processes.alone:
        return Neighbors(indices, similarities)
    own = slice(mine[0].start, mine[-1].stop) if mine else None
    return Neighbors(
        processes.gather_rows(None if own is None else indices[own], counts),
        processes.gather_rows(None if own is None else similarities[own], counts),
    )
