"""What a weighter is: class scores in, a certainty for each example out."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor


class Weighter(ABC):
    """How sure a pseudo-label is, from its class probabilities."""

    @abstractmethod
    def certainty(self, probabilities: Tensor) -> Tensor:
        """[n] in 0..1.

        Args:
            probabilities: [n, c], rows that sum to 1. Rows that no label reached are never passed.
        """
