"""What an affinity is: similarities of neighbours in, edge weights out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

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

    def by_rows(
        self, blocks: Sequence[slice], lists: Callable[[slice], Neighbors]
    ) -> Iterator[Tensor]:
        """`weights` of lists that lie in files, a block of rows after the other.

        One whose weights need the lists of other points overrides this, or they are read at once.

        Args:
            blocks: of all rows, in order.
            lists: those of some rows; indices count all points.
        """
        if self.rowwise:
            yield from (self.weights(lists(rows)) for rows in blocks)
        elif blocks:
            every = self.weights(lists(slice(0, blocks[-1].stop)))
            yield from (every[rows] for rows in blocks)
