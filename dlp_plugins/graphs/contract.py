"""What a graph builder is: descriptors in, each point's nearest neighbours out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sized
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from dlp_plugins.graph import Neighbors
from dlp_plugins.processes.group import Processes

K = Annotated[int, Field(ge=1, description="neighbours of each point")]


class GraphBuilder(ABC):
    """Finds neighbours by inner product; affinity, symmetry and normalisation come later.

    Attributes:
        k: neighbours of each point; a set of n points gives at most n - 1.
        exact: whether the neighbours are the true ones (recall 1 but for ties).
        merges_duplicates: points with the same embedding may be searched once, as one point.
    """

    k: int
    exact: bool = False
    merges_duplicates: bool = True

    @abstractmethod
    def neighbors(self, descriptors: Tensor) -> Neighbors:
        """The k nearest others of each point.

        Args:
            descriptors: [n, d] float32, L2-normalised, on any device.

        Returns:
            Neighbours on the same device, never the point itself (dropped by identity, not by
            position: a duplicate may come first), in any order, -1 where fewer were found, with
            any similarity there. An `order` of the points by nearness, if the search finds one,
            makes solving faster.
        """

    def neighbors_together(self, descriptors: Tensor, processes: Processes) -> Neighbors:
        """The same by several processes, which all hold the descriptors and all get the neighbours.

        By default the first one searches while the others wait.
        """
        found = self.neighbors(descriptors) if processes.first else None
        n, k = len(descriptors), clip_k(self.k, descriptors)
        has_order = processes.from_first(found is not None and found.order is not None)
        if found is None:
            device = descriptors.device
            order = torch.empty(n, dtype=torch.int64, device=device) if has_order else None
            indices = torch.empty(n, k, dtype=torch.int64, device=device)
            found = Neighbors(indices, torch.empty(n, k, device=device), order)
        same = processes.tensor_from_first
        indices, order = found.indices.long(), found.order
        return Neighbors(
            same(indices), same(found.similarities), None if order is None else same(order.long())
        )


def clip_k(k: int, descriptors: Sized) -> int:
    """k, or n - 1 if that is less."""
    return max(0, min(k, len(descriptors) - 1))


def no_neighbors(descriptors: Tensor) -> Neighbors:
    """The neighbours in a set of one point: none, [n, 0]."""
    empty = descriptors.new_empty(len(descriptors), 0)
    return Neighbors(empty.int(), empty)


def drop_self(indices: Tensor, similarities: Tensor, first: int = 0) -> Neighbors:
    """Drop each point from its own list of k + 1 candidates, by identity; else drop the last.

    With duplicates a point need not come first in its own list, nor be in it at all.

    Args:
        first: the number of the first list's point.
    """
    n, width = indices.shape
    is_self = indices == torch.arange(first, first + n, device=indices.device)[:, None]
    is_self[:, -1] |= ~is_self.any(dim=1)
    keep = ~is_self
    return Neighbors(
        indices[keep].reshape(n, width - 1).int(), similarities[keep].reshape(n, width - 1)
    )


def recall(found: Neighbors, exact: Neighbors) -> float:
    """The share of true neighbours found, where one as near as the k-th true one counts as true.

    So ties are no error: among a thousand duplicates any k are correct.
    """
    if exact.indices.numel() == 0:
        return 1.0
    least = exact.similarities.min(dim=1, keepdim=True).values
    hits = (found.similarities >= least - 1e-6) & (found.indices >= 0)
    return float(hits.sum() / exact.indices.numel())
