"""What an affinity is: similarities of neighbours in, edge weights out."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from dlp_plugins.graph import Neighbors


class Affinity(ABC):
    """Turns the similarities of neighbours into the non-negative weights a_ij of A.

    Attributes:
        rowwise: the weights of a point depend on its own list alone, so that lists may be given in
            blocks of rows.
    """

    rowwise: bool = False

    @abstractmethod
    def weights(self, neighbors: Neighbors) -> Tensor:
        """[n, k] float32, a_ij >= 0; entries of missing neighbours (-1) are ignored."""
