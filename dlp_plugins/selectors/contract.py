"""What a selector is: points, some with a label, in; the points to label next out.

Shapes: n points, d numbers each, c classes. No two points have the same descriptor.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from dlp_plugins.graph import Graph
from dlp_plugins.inputs import UNLABELED


@dataclass(frozen=True)
class Pool:
    """What is known of the points, all of it on one device.

    descriptors: F [n, d] float32, unit rows, as a graph is built from; a row may be zero.
    labels: [n] int64, -1 where there is none; all of them may be -1.
    graph: Wn [n, n] of F, for a selector that needs it.
    probabilities: [n, c] float32 from the labels that are known, rows that sum to 1 or are 0 where
        no label reaches, for a selector that needs them.
    """

    descriptors: Tensor
    labels: Tensor
    graph: Graph | None = None
    probabilities: Tensor | None = None

    @property
    def labeled(self) -> Tensor:
        """Positions of the labelled points, ascending."""
        return (self.labels != UNLABELED).nonzero().squeeze(1)

    @property
    def unlabeled(self) -> Tensor:
        """Positions of the points to choose among, ascending."""
        return (self.labels == UNLABELED).nonzero().squeeze(1)


class Selector(ABC):
    """Chooses the points whose labels should help most.

    Attributes:
        needs_graph: the pool must hold the graph.
        needs_probabilities: the pool must hold probabilities, and so some labels.
    """

    needs_graph: bool = True
    needs_probabilities: bool = False

    @abstractmethod
    def select(self, pool: Pool, count: int) -> Tensor:
        """Points without a label, the best first: [count] int64, all different.

        All are chosen before any of them gets its label, so a batch should hold no two points of
        which one makes the other needless.

        Args:
            count: at least 1, at most the number of points without a label.
        """


def best_first(scores: Tensor) -> Tensor:
    """Positions [n] by scores [n] from the highest, the lower position first of equal ones."""
    return torch.argsort(scores, descending=True, stable=True)
