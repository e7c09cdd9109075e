"""Certainty as the largest probability."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dlp_plugins.registry import weighters
from dlp_plugins.weighters.contract import Weighter


@weighters.register("max_probability")
@dataclass(frozen=True)
class MaxProbability(Weighter):
    """w_i = max_j p_ij (the confidence of Pseudo-Label, Lee 2013, and FixMatch)."""

    def certainty(self, probabilities: Tensor) -> Tensor:
        return probabilities.amax(dim=1)
