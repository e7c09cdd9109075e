"""No transform but unit length."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dlp_plugins.inputs import unit_rows
from dlp_plugins.registry import transforms
from dlp_plugins.transforms.contract import Transform


@transforms.register("none")
@dataclass(frozen=True)
class NoTransform(Transform):
    """Rows to unit length, as the paper takes them."""

    def apply(self, rows: Tensor, total: Tensor | None) -> Tensor:
        return unit_rows(rows)
