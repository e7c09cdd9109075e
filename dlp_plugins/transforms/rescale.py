"""Centred, and the columns that vary most divided: for embeddings of a pretrained network."""

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


@transforms.register("rescale")
@dataclass(frozen=True)
class Rescale(Transform):
    """Unit rows, less the column means, column j over max(s_j / median(s), 1), unit rows.

    s_j is the standard deviation of column j; a zero row stays zero and is left out of both. A few
    columns of a pretrained network's output often vary many times more than the rest and say little
    of the class; divided, they no longer decide which points are near. Not for principal
    components: their first columns vary most and say most.
    """

    def statistics(self, rows: Tensor) -> Tensor:
        return moments(unit_rows(rows, torch.float64))

    def apply(self, rows: Tensor, total: Tensor | None) -> Tensor:
        assert total is not None
        mean, deviation = mean_and_deviation(total)
        unit = unit_rows(rows, torch.float64)
        return unit_rows(centered(unit, mean) / divisors(deviation))


def divisors(deviation: Tensor) -> Tensor:
    """[d]: max(s_j / median(s), 1), the median of the columns that vary where the other is 0."""
    varying = deviation[deviation > 0]
    if len(varying) == 0:
        return torch.ones_like(deviation)
    # not torch.median, which takes the lower of the two middle values
    median = deviation.quantile(0.5)
    return (deviation / (median if median > 0 else varying.quantile(0.5))).clamp(min=1)
