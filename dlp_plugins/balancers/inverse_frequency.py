"""Inverse class frequency, the paper's balance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlp_plugins.balancers.contract import Balancer
from dlp_plugins.registry import balancers


@balancers.register("inverse_frequency")
@dataclass(frozen=True)
class InverseFrequency(Balancer):
    """z_j = (n / c) / count_j (Iscen et al., section 3.3, scaled so that balance gives 1)."""

    def class_weights(self, counts: Tensor) -> Tensor:
        counts = counts.float()
        even = counts.sum() / len(counts)
        return torch.where(counts > 0, even / counts, torch.zeros_like(counts))
