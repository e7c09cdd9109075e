"""What a refiner is: class probabilities from the graph in, better ones from the descriptors out.

Shapes: n points, d numbers each, c classes, m of the points labelled.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor

from dlp_plugins.errors import PluginError
from dlp_plugins.graph import Graph
from dlp_plugins.inputs import UNLABELED


@dataclass(frozen=True)
class Given:
    """The labels that are known.

    points: [m] int64, the labelled points.
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


class Classifier(Protocol):
    """Labels new points as a refiner labelled the old ones, without doing it again."""

    def probabilities(self, descriptors: Tensor, neighbors: Tensor) -> Tensor:
        """[b, c] of new points.

        Args:
            descriptors: [b, d] float32 or float64, transformed as the old ones were.
            neighbors: [b, c] of the same type, rows of Wn Q: the mean of their neighbours' Q by
                weight in the graph.
        """

    def tensors(self) -> dict[str, Tensor]:
        """All that `Refiner.restore` needs to make the same classifier again, by name."""


@dataclass(frozen=True)
class Refined:
    """What a refiner found.

    probabilities: Q [n, c] float32, rows that sum to 1; a labelled row stays as given. A row that
        no label reaches may stay zero, if the refiner knows nothing of it.
    classifier: for new points; None where a refiner has nothing to add to the graph's scores.
    """

    probabilities: Tensor
    classifier: Classifier | None = None


class Empty(Protocol):
    """Makes a float32 tensor of that shape, as `torch.empty`; where memory is short in a file."""

    def __call__(self, shape: Sequence[int], /, *, device: torch.device) -> Tensor: ...


class Refiner(ABC):
    """Improves class probabilities once, after the solve.

    Attributes:
        by_blocks: goes through arrays [n, c] by blocks of rows, so that they may lie in files:
            `refine` then takes an argument `empty` (`Empty`) to make its own by.
    """

    by_blocks: bool = False

    @abstractmethod
    def refine(
        self,
        descriptors: Tensor,
        graph: Graph,
        probabilities: Tensor,
        given: Given,
        shares: Tensor,
    ) -> Refined:
        """Better probabilities, all tensors on one device.

        Args:
            descriptors: F [n, d] float32, unit rows, as the graph was built from.
            graph: Wn [n, n].
            probabilities: P [n, c] float32 from the normalizer; zeros where no label reaches. A
                refiner may overwrite it.
            given: the known labels.
            shares: pi [c] float32, sum 1: share of each class among the unlabelled points.
        """

    def continued(self, classifier: Classifier | None) -> Self:
        """The refiner for a call whose probabilities are its own last ones, with a few points more.

        One that takes many steps to its answer overrides this, to take few.

        Args:
            classifier: what the last call returned, or None.
        """
        return self

    def restore(self, tensors: dict[str, Tensor]) -> Classifier:
        """The classifier that these `tensors()` are of; a refiner that gives one overrides this.

        Raises:
            PluginError: this refiner does not.
        """
        raise PluginError(
            f"{type(self).__name__}: its classifier cannot be read from an index, as it has no "
            "restore()."
        )
