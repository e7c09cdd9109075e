"""Centred, and columns that vary much divided: the default for embeddings of a pretrained network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlp_plugins.transforms.contract import (
    Transform,
    centered,
    mean_and_deviation,
    moments,
    unit_rows,
)


@dataclass(frozen=True)
class Rescale(Transform):
    """Rows to unit length, less the column means, column j over max(s_j / median(s), 1), unit length.

    s_j is the standard deviation of column j. A few columns of a pretrained network's output often
    vary many times more than the rest and say little of the class; divided, they no longer decide
    who is near. Not for principal components: their first columns vary most and say most.
    """

    def statistics(self, rows: Tensor) -> Tensor:
        return moments(unit_rows(rows))

    def apply(self, rows: Tensor, total: Tensor | None) -> Tensor:
        assert total is not None
        mean, deviation = mean_and_deviation(total)
        return unit_rows(centered(unit_rows(rows), mean) / divisors(deviation)).float()


def divisors(deviation: Tensor) -> Tensor:
    """[d]: max(s_j / median(s), 1); where half of the columns are constant, the median of the rest."""
    varying = deviation[deviation > 0]
    if len(varying) == 0:
        return torch.ones_like(deviation)
    # not torch.median, which takes the lower of the two middle values
    median = deviation.quantile(0.5)
    return (deviation / (median if median > 0 else varying.quantile(0.5))).clamp(min=1)
