"""Entropy certainty, the paper's weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dlp_plugins.registry import weighters
from dlp_plugins.weighters.contract import Weighter


@weighters.register("entropy")
@dataclass(frozen=True)
class Entropy(Weighter):
    """w_i = 1 - H(p_i) / log c (Iscen et al., eq. 11): 1 for one class, 0 for no preference."""

    def certainty(self, probabilities: Tensor) -> Tensor:
        classes = probabilities.shape[1]
        if classes == 1:
            return torch.ones_like(probabilities[:, 0])
        entropy = torch.special.entr(probabilities).sum(dim=1)
        return (1 - entropy / math.log(classes)).clamp(0, 1)
