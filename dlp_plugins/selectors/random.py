"""Points at random: what every other selector has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from dlp_plugins.registry import selectors
from dlp_plugins.selectors.contract import Pool, Selector


@selectors.register("random")
@dataclass(frozen=True)
class Random(Selector):
    """Every point without a label is as likely as any other."""

    seed: Annotated[int, Field(ge=0, description="another seed gives other points")] = 0

    needs_graph = False

    def select(self, pool: Pool, count: int) -> Tensor:
        points = pool.unlabeled
        random = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(len(points), generator=random)[:count]
        return points[order.to(points.device)]
