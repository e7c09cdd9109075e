"""What a source of pseudo-labels is: the network as it is in, labels with certainties out.

To write one, subclass `Source`, register it, and hand its name to
`dlp_plugins.testing.check_source`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from dlp_plugins.propagation import Propagator, PseudoLabels


@dataclass(frozen=True)
class Refresh:
    """What a source may use. n training images, c classes, d numbers in a descriptor.

    student: the network in training. teacher: its average, None where the method keeps none.
    describe: a network's descriptors [n, d] float32 of all training images, plain views.
    predict: a network's class probabilities [n, c] float32 of the same.
    propagator: graph, solver and the other components of the recipe.
    labels: [n] int64, the given ones, -1 elsewhere.
    indices: [n] int64 on the CPU, the place of each image in the data set's own training split.
    scores: [n, c] the last propagation's, to start the solver from; None without one.
    """

    student: nn.Module
    teacher: nn.Module | None
    describe: Callable[[nn.Module], Tensor]
    predict: Callable[[nn.Module], Tensor]
    propagator: Propagator
    labels: Tensor
    num_classes: int
    indices: Tensor
    scores: Tensor | None = None


class Source(ABC):
    """Makes pseudo-labels before an epoch of stage two.

    Attributes:
        needs_teacher: it cannot do without one; a recipe without such a method is refused.
    """

    needs_teacher: bool = False

    @abstractmethod
    def pseudo_labels(self, refresh: Refresh) -> PseudoLabels:
        """Pseudo-labels of every training image."""
