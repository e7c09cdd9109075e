"""No refinement: the graph's own labels."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dlp_plugins.graph import Graph
from dlp_plugins.refiners.contract import Given, Refined, Refiner
from dlp_plugins.registry import refiners


@refiners.register("none")
@dataclass(frozen=True)
class NoRefiner(Refiner):
    """Q = P; a point that no label reaches keeps a row of zeros."""

    def refine(
        self,
        descriptors: Tensor,
        graph: Graph,
        probabilities: Tensor,
        given: Given,
        shares: Tensor,
    ) -> Refined:
        return Refined(probabilities)
