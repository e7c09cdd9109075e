"""Certainty as the difference between the two largest probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlp_plugins.registry import weighters
from dlp_plugins.weighters.contract import Weighter


@weighters.register("margin")
@dataclass(frozen=True)
class Margin(Weighter):
    """w_i = p_i(1) - p_i(2), the two largest probabilities (Scheffer et al., 2001)."""

    def certainty(self, probabilities: Tensor) -> Tensor:
        if probabilities.shape[1] == 1:
            return torch.ones_like(probabilities[:, 0])
        best = probabilities.topk(2, dim=1).values
        return best[:, 0] - best[:, 1]
