"""FixMatch's cosine, which stops well above 0."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dlp_plugins.registry import schedules
from dlp_plugins.schedules.contract import Schedule


@schedules.register("fixmatch")
@dataclass(frozen=True)
class FixMatchSchedule(Schedule):
    """cos(7 pi k / (16 K)) for step k of K (Sohn et al., NeurIPS 2020, section 2.3): 1 to 0.195."""

    def factor(self, epoch: float, epochs: int) -> float:
        return math.cos(7 * math.pi * min(epoch / epochs, 1.0) / 16)
