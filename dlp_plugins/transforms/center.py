"""Less the mean: directions are taken from the middle of the points."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlp_plugins.inputs import unit_rows
from dlp_plugins.registry import transforms
from dlp_plugins.transforms.contract import (
    Transform,
    centered,
    mean_and_deviation,
    moments,
)


@transforms.register("center")
@dataclass(frozen=True)
class Center(Transform):
    """Rows to unit length, less the column means, rows to unit length."""

    def statistics(self, rows: Tensor) -> Tensor:
        return moments(unit_rows(rows, torch.float64))

    def apply(self, rows: Tensor, total: Tensor | None) -> Tensor:
        assert total is not None
        unit = unit_rows(rows, torch.float64)
        return unit_rows(centered(unit, mean_and_deviation(total)[0]))
