"""Rows divided by their sums, the paper's probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlp_plugins.normalizers.contract import Normalizer
from dlp_plugins.registry import normalizers

# A row of scores that sums to less is rounding, not evidence: dividing by its sum amplifies noise.
SMALLEST_SUM = torch.finfo(torch.float32).tiny


@normalizers.register("clamp")
@dataclass(frozen=True)
class Clamp(Normalizer):
    """p_ij = max(z_ij, 0) / sum_k max(z_ik, 0) (Iscen et al., section 3.2); no other row matters.

    Class sizes are not used.
    """

    def apply(self, scores: Tensor, total: Tensor | None, shares: Tensor) -> Tensor:
        positive = scores.clamp(min=0)
        row_sum = positive.sum(dim=1, keepdim=True)
        return torch.where(row_sum > SMALLEST_SUM, positive / row_sum, 0.0)
