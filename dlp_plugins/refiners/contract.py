"""What a refiner is: class probabilities from the graph in, better ones from the descriptors out.

Shapes: n points, d numbers each, c classes, m of the points labelled.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from dlp_plugins.graph import Graph

UNLABELED = -1


@dataclass(frozen=True)
class Given:
    """The labels that are known.

    points: [m] int64, the labelled points in ascending order.
    distributions: [m, c] float32, rows that sum to 1; one-hot for a plain label.
    weights: [m] float32, what each label counts; 1 for a plain one.
    """

    points: Tensor
    distributions: Tensor
    weights: Tensor

    @classmethod
    def from_labels(cls, labels: Tensor, num_classes: int) -> Given:
        """Of labels [n], -1 where there is none."""
        points = (labels != UNLABELED).nonzero().squeeze(1)
        own = torch.nn.functional.one_hot(labels[points].long(), num_classes).float()
        return cls(points, own, torch.ones(len(points), device=labels.device))


class Refiner(ABC):
    """Improves class probabilities once, after the solve."""

    @abstractmethod
    def refine(
        self,
        descriptors: Tensor,
        graph: Graph,
        probabilities: Tensor,
        given: Given,
        shares: Tensor,
    ) -> Tensor:
        """Probabilities Q [n, c] float32, rows that sum to 1; a labelled row is as given.

        Args:
            descriptors: F [n, d] float32, unit rows, as the graph was built from.
            graph: Wn [n, n].
            probabilities: P [n, c] float32 from the normalizer; zeros where no label reaches. A
                refiner may overwrite it.
            given: the known labels.
            shares: pi [c] float32, sum 1: share of each class among the unlabelled points.
        """
