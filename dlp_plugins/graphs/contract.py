"""What a graph builder is: descriptors in, each point's nearest neighbours out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated

from pydantic import Field
from torch import Tensor

from dlp_plugins.graph import Neighbors

K = Annotated[int, Field(ge=1, description="neighbours of each point")]


class GraphBuilder(ABC):
    """Finds neighbours by inner product. Affinity, symmetry and normalisation are not its business.

    Attributes:
        k: neighbours asked for; a set of n points gives at most n - 1.
        exact: whether the neighbours are the true ones (recall 1 but for ties).
    """

    k: int
    exact: bool = False

    @abstractmethod
    def neighbors(self, descriptors: Tensor) -> Neighbors:
        """The k nearest others of each point.

        Args:
            descriptors: [n, d] float32, L2-normalised, on any device.

        Returns:
            Neighbours on the same device, never the point itself (dropped by identity, not by
            position: a duplicate may come first), in any order, -1 where fewer were found.
        """
