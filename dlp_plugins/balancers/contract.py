"""What a balancer is: how many examples each class has in, a factor for each class out."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor


class Balancer(ABC):
    """Corrects for classes that have more pseudo-labels than others."""

    @abstractmethod
    def class_weights(self, counts: Tensor) -> Tensor:
        """[c] float32, 1 everywhere for a balanced set; 0 for a class without an example.

        Args:
            counts: [c] int64, labelled and pseudo-labelled examples of each class.
        """
