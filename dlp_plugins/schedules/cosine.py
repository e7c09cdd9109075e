"""Half a cosine down to 0: the paper's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from dlp_plugins.registry import schedules
from dlp_plugins.schedules.contract import Schedule

# The paper's cosine would reach 0 at epoch 210 of a stage of 180.
STRETCH = 210 / 180


@schedules.register("cosine")
@dataclass(frozen=True)
class Cosine(Schedule):
    """(1 + cos(pi t / T)) / 2 for epoch t (Loshchilov and Hutter, ICLR 2017); 0 from T on.

    The paper stops before T: at epoch 180 of 210, where the factor is 0.050.
    """

    zero_epoch: Annotated[
        float | None,
        Field(gt=0, description="T, the epoch at which it is 0; by default 7/6 of the stage's"),
    ] = None

    def factor(self, epoch: float, epochs: int) -> float:
        end = STRETCH * epochs if self.zero_epoch is None else self.zero_epoch
        return (1 + math.cos(math.pi * min(epoch / end, 1.0))) / 2
