"""Signed power: large entries count less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from dlp_plugins.inputs import unit_rows
from dlp_plugins.registry import transforms
from dlp_plugins.transforms.contract import Transform


@transforms.register("power")
@dataclass(frozen=True)
class Power(Transform):
    """x_ij = sign(x_ij) |x_ij|^exponent, rows to unit length (Hu, Gripon, Pateux, PT-MAP, 2021)."""

    exponent: Annotated[float, Field(gt=0, le=1, description="1 leaves rows as they are")] = 0.5

    def apply(self, rows: Tensor, total: Tensor | None) -> Tensor:
        rows = unit_rows(rows, torch.float64)
        return unit_rows(rows.sign() * rows.abs().pow(self.exponent))
