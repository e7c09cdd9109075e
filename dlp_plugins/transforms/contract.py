"""What a transform is: descriptors in, descriptors of unit length out, in two passes over rows.

`statistics` of every block, summed, is all that `apply` needs to know of the other rows: so rows
may stay in a file, and a new point is transformed as the others were.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor


class Transform(ABC):
    """Changes descriptors before their graph is built; only the direction of a row may count."""

    def statistics(self, rows: Tensor) -> Tensor | None:
        """Sums over a block of rows [b, d]: float64 of one shape, to be added up over all blocks.

        None where no row needs to know of another, so that the first pass can be left out.
        """
        return None

    @abstractmethod
    def apply(self, rows: Tensor, total: Tensor | None) -> Tensor:
        """[b, d] float32: the block transformed, rows of unit length; a zero row stays zero.

        Args:
            rows: [b, d] of any real type and length; left as they are.
            total: the sum of `statistics` over all blocks.
        """

    def note(self, total: Tensor | None, dim: int) -> str | None:
        """A sentence for the summary on what was done to rows of `dim` numbers, if worth one."""
        return None


def total_statistics(transform: Transform, blocks: Iterable[Tensor]) -> Tensor | None:
    """The first pass: `statistics` of every block, summed."""
    total: Tensor | None = None
    for rows in blocks:
        part = transform.statistics(rows)
        if part is None:
            return None
        total = part if total is None else total.add_(part)
    return total


def moments(rows: Tensor) -> Tensor:
    """[3, d] float64: number of rows that are not zero, sums of columns and of their squares."""
    used = rows.any(dim=1).sum().double().expand(rows.shape[1])
    return torch.stack([used, rows.sum(dim=0), rows.square().sum(dim=0)])


def mean_and_deviation(total: Tensor) -> tuple[Tensor, Tensor]:
    """Means and standard deviations (over n, not n - 1) of columns, [d] each, from `moments`."""
    count = total[0].clamp(min=1)
    mean = total[1] / count
    return mean, (total[2] / count - mean.square()).clamp(min=0).sqrt()


def centered(unit: Tensor, mean: Tensor) -> Tensor:
    """Rows less their mean; a zero row has no direction and stays zero."""
    return torch.where(unit.any(dim=1, keepdim=True), unit - mean, 0.0)
