"""Less the mean: directions are taken from the middle of the points."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dlp_plugins.registry import transforms
from dlp_plugins.transforms.contract import (
    Transform,
    centered,
    mean_and_deviation,
    moments,
    unit_rows,
)


@transforms.register("center")
@dataclass(frozen=True)
class Center(Transform):
    """Rows to unit length, less the column means, rows to unit length."""

    def statistics(self, rows: Tensor) -> Tensor:
        return moments(unit_rows(rows))

    def apply(self, rows: Tensor, total: Tensor | None) -> Tensor:
        assert total is not None
        return unit_rows(centered(unit_rows(rows), mean_and_deviation(total)[0])).float()
