"""Up and down once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from dlp_plugins.registry import schedules
from dlp_plugins.schedules.contract import Schedule


@schedules.register("one_cycle")
@dataclass(frozen=True)
class OneCycle(Schedule):
    """Half a cosine up from 1/start_divisor to 1, then one down to 1/end_divisor of the start.

    Smith and Topin, 2017, as `torch.optim.lr_scheduler.OneCycleLR` computes it; momentum stays.
    """

    rise: Annotated[float, Field(gt=0, lt=1, description="share of the stage that goes up")] = 0.3
    start_divisor: Annotated[float, Field(ge=1, description="of the rate at the start")] = 25.0
    end_divisor: Annotated[float, Field(ge=1, description="of the start's rate, at the end")] = (
        10_000.0
    )

    def factor(self, epoch: float, epochs: int) -> float:
        start = 1 / self.start_divisor
        t = min(epoch / epochs, 1.0)
        if t < self.rise:
            return _between(start, 1.0, t / self.rise)
        return _between(1.0, start / self.end_divisor, (t - self.rise) / (1 - self.rise))


def _between(first: float, last: float, share: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2
