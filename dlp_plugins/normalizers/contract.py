"""What a normalizer is: a solver's scores in, class probabilities out, in passes over the rows.

`fit` reads all rows, in blocks, and `apply` needs to know nothing else of the other rows. So rows
may stay on disk, and a new point is treated as the others were.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

from torch import Tensor

Blocks = Callable[[], Iterable[tuple[Tensor, Tensor]]]
"""Starts a pass over all rows: blocks of scores [b, c] and of `unlabeled` [b]."""


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

    def fit(self, blocks: Blocks, shares: Tensor) -> Tensor | None:
        """What `apply` needs to know of all rows; by default the sum of `statistics`, in one pass.

        A normalizer that needs several passes overrides this.

        Args:
            blocks: starts a pass.
            shares: pi [c] float32, as `apply` takes them.
        """
        total: Tensor | None = None
        for scores, unlabeled in blocks():
            part = self.statistics(scores, unlabeled)
            if part is None:
                return None
            total = part if total is None else total + part
        return total

    @abstractmethod
    def apply(self, scores: Tensor, total: Tensor | None, shares: Tensor) -> Tensor:
        """P [b, c] float32, rows that sum to 1; a row without evidence becomes zeros.

        Args:
            scores: Z [b, c] float32; left as they are.
            total: what `fit` returned.
            shares: pi [c] float32, sum 1: share of each class among the unlabelled points.
        """
