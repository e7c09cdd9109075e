"""No change but the warm-up."""

from __future__ import annotations

from dataclasses import dataclass

from dlp_plugins.registry import schedules
from dlp_plugins.schedules.contract import Schedule


@schedules.register("constant")
@dataclass(frozen=True)
class Constant(Schedule):
    """The base learning rate throughout."""

    def factor(self, epoch: float, epochs: int) -> float:
        return 1.0
