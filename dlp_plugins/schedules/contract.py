"""What a schedule is: the place in a stage in, a factor of the learning rate out.

To write one, subclass `Schedule`, register it, and hand its name to
`dlp_plugins.testing.check_schedule`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

Warmup = Annotated[
    float, Field(ge=0, description="epochs at a stage's start in which the rate rises from near 0")
]


@dataclass(frozen=True)
class Schedule(ABC):
    """A factor of the base learning rate, the same for every parameter group.

    Each stage starts again at epoch 0 (Iscen et al.: the cosine is restarted for stage two).
    """

    warmup_epochs: Warmup = 0.0

    @abstractmethod
    def factor(self, epoch: float, epochs: int) -> float:
        """The factor without warm-up, 0 or more.

        Args:
            epoch: from 0, fractional within an epoch.
            epochs: of the stage.
        """

    def __call__(self, epoch: float, epochs: int) -> float:
        """The factor at this place: linear warm-up times `factor`."""
        warm = min(1.0, epoch / self.warmup_epochs) if self.warmup_epochs else 1.0
        return warm * self.factor(epoch, epochs)
