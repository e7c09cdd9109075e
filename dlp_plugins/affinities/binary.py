"""a_ij = 1 for every neighbour, however near."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dlp_plugins.affinities.contract import Affinity
from dlp_plugins.graph import Neighbors
from dlp_plugins.registry import affinities


@affinities.register("binary")
@dataclass(frozen=True)
class Binary(Affinity):
    """Weight 1 for each neighbour, like scikit-learn's `kernel='knn'`.

    Descriptors at a right angle or more get 0, and so a zero vector gets no edge.
    """

    rowwise = True

    def weights(self, neighbors: Neighbors) -> Tensor:
        near = (neighbors.indices >= 0) & (neighbors.similarities > 0)
        return near.to(neighbors.similarities.dtype)
