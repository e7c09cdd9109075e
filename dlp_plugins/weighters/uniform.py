"""No weights: every pseudo-label counts the same."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlp_plugins.registry import weighters
from dlp_plugins.weighters.contract import Weighter


@weighters.register("uniform")
@dataclass(frozen=True)
class Uniform(Weighter):
    """w_i = 1 for every point that a label reaches: the paper's ablation 'without weights'."""

    def certainty(self, probabilities: Tensor) -> Tensor:
        return torch.ones_like(probabilities[:, 0])
