"""a_ij = max(v_i . v_j, 0)^gamma, the paper's affinity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from dlp_plugins.affinities.contract import Affinity
from dlp_plugins.graph import Neighbors
from dlp_plugins.registry import affinities


@affinities.register("inner_product")
@dataclass(frozen=True)
class InnerProduct(Affinity):
    """Inner product of the descriptors, clamped at 0, to the power gamma (Iscen et al., eq. 9)."""

    gamma: Annotated[float, Field(gt=0, description="power; larger: fewer strong edges")] = 3.0
    rowwise = True

    def weights(self, neighbors: Neighbors) -> Tensor:
        return neighbors.similarities.clamp(min=0).pow(self.gamma)
