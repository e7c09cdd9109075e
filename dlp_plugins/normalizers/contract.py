"""What a normalizer is: a solver's scores in, class probabilities out, in two passes over the rows.

`statistics` of every block, summed, is all that `apply` needs to know of the other rows. So rows
may stay on disk, and a new point is treated as the others were.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

from torch import Tensor


class Normalizer(ABC):
    """Turns scores Z into class probabilities P."""

    def statistics(self, scores: Tensor, unlabeled: Tensor) -> Tensor | None:
        """Sums over a block of rows: float64 of one shape, to be added up over all blocks.

        None where no row depends on another; the first pass is then left out.

        Args:
            scores: Z [b, c] float32, rows of all classes.
            unlabeled: [b] bool, True for an unlabelled point.
        """
        return None

    @abstractmethod
    def apply(self, scores: Tensor, total: Tensor | None, shares: Tensor) -> Tensor:
        """P [b, c] float32, rows that sum to 1; a row without evidence becomes zeros.

        Args:
            scores: Z [b, c] float32; left as they are.
            total: the sum of `statistics` over all blocks.
            shares: pi [c] float32, sum 1: share of each class among the unlabelled points.
        """


def total_statistics(
    normalizer: Normalizer, blocks: Iterable[tuple[Tensor, Tensor]]
) -> Tensor | None:
    """The first pass: `statistics` of every block (scores, unlabeled), summed."""
    total: Tensor | None = None
    for scores, unlabeled in blocks:
        part = normalizer.statistics(scores, unlabeled)
        if part is None:
            return None
        total = part if total is None else total + part
    return total
