"""What a weighter is: class scores in, a certainty for each example out."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor


class Weighter(ABC):
    """How sure a pseudo-label is, from its class probabilities."""

    @abstractmethod
    def certainty(self, probabilities: Tensor) -> Tensor:
        """[n] float32 in 0..1, each from its own row alone: rows come in blocks of any size.

        Args:
            probabilities: [n, c] float32, n >= 0 rows that sum to 1. Rows that no label reached are
                never among them.
        """
