"""The losses of one epoch, summed on the device, and whether they are still finite."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class EpochLosses:
    """Sums of every loss term over the steps of an epoch.

    Args:
        sums: of the steps done before a resume.
        steps: how many those are.
    """

    def __init__(self, sums: dict[str, float] | None = None, steps: int = 0) -> None:
        self._sums = {k: torch.tensor(v, dtype=torch.float64) for k, v in (sums or {}).items()}
        self._finite_steps = torch.tensor(steps)
        self.steps = steps

    def add(self, losses: dict[str, Tensor]) -> None:
        """Add one step's terms, 'total' among them, without waiting for the device."""
        for name, loss in losses.items():
            before = self._sums.get(name)
            self._sums[name] = loss.double() if before is None else before + loss.double()
        # a sum that is not finite stays so
        finite = torch.isfinite(self._sums["total"])
        self._finite_steps = self._finite_steps.to(finite.device, non_blocking=True) + finite
        self.steps += 1

    def means(self) -> dict[str, float]:
        """Each term's mean over the steps so far; waits for the device."""
        return {name: total / self.steps for name, total in self.sums().items()}

    def sums(self) -> dict[str, float]:
        """What a checkpoint keeps; waits for the device."""
        return {name: float(total) for name, total in self._sums.items()}

    def first_bad_step(self) -> tuple[int, float] | None:
        """The first step, from 1, whose total was not finite, and the sum it left; None if none."""
        total = float(self._sums["total"]) if self._sums else 0.0
        return None if math.isfinite(total) else (int(self._finite_steps) + 1, total)
