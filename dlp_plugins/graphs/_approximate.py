"""What every approximate builder has in common; each adds its own search."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from dlp_plugins.graph import Neighbors
from dlp_plugins.graphs._blockwise import search_blockwise
from dlp_plugins.graphs._top_k import Array
from dlp_plugins.graphs.contract import GraphBuilder, clip_k, drop_self, no_neighbors

Seed = Annotated[int, Field(ge=0, description="seed of the index's random choices")]
MAX_ALL_PAIRS_POINTS = 1000  # up to here comparing all pairs is instant


class Found(NamedTuple):
    """indices [n, k] (the point itself may be among them, -1 for none), similarities [n, k];
    order [n], as `Neighbors.order`.
    """

    indices: Array
    similarities: Array
    order: Array | None = None


class ApproximateBuilder(GraphBuilder):
    """Searches on the CPU, from a seed: the same descriptors give the same neighbours.

    Up to 1,000 points all pairs are compared instead.
    """

    @abstractmethod
    def search(self, v: Array, k: int) -> Found:
        """Candidates of each row of v [n, d] float32 by inner product."""

    def neighbors(self, descriptors: Tensor) -> Neighbors:
        return self._neighbors(descriptors, self.search)

    def _neighbors(self, descriptors: Tensor, search: Callable[[Array, int], Found]) -> Neighbors:
        k = clip_k(self.k, descriptors)
        if k == 0:
            return no_neighbors(descriptors)
        if len(descriptors) <= MAX_ALL_PAIRS_POINTS:
            return search_blockwise(descriptors, k)
        found = search(descriptors.cpu().contiguous().numpy(), k + 1)
        others = drop_self(torch.from_numpy(found.indices), torch.from_numpy(found.similarities))
        similarities = others.similarities.masked_fill(others.indices < 0, 0.0)
        order = None if found.order is None else torch.from_numpy(found.order).long()
        return Neighbors(
            others.indices.to(descriptors.device), similarities.to(descriptors.device), order
        )
