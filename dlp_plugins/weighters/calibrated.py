"""Certainty as the probability of the best class at a given temperature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from dlp_plugins.registry import weighters
from dlp_plugins.weighters.contract import Weighter


@weighters.register("calibrated")
@dataclass(frozen=True)
class Calibrated(Weighter):
    """w_i = max_j softmax(log p_i / T)_j (temperature scaling, Guo et al., ICML 2017).

    A temperature below 1 makes weights larger, above 1 smaller. `dlp propagate` reports the one at
    which probabilities of its labels hold.
    """

    temperature: Annotated[
        float, Field(gt=0, description="divides the logarithms of probabilities")
    ] = 1.0

    def certainty(self, probabilities: Tensor) -> Tensor:
        log_p = probabilities.double().log() / self.temperature
        # no entry of a row is larger than 1, so its largest is the one that softmax keeps from 0
        largest = (log_p.amax(dim=1) - torch.logsumexp(log_p, dim=1)).exp().float().clamp(0, 1)
        return torch.where(probabilities.any(dim=1), largest, 0.0)  # a row of zeros has none
