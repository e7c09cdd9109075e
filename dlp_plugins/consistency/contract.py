"""What a consistency method is: what the loss of a batch is made of besides the labels.

A method sees one batch at a time (`Step`) and returns named loss terms; their sum is what the
network descends. It may keep a teacher and update it after each step.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from dlp_plugins.network import Network, Output


@dataclass(frozen=True)
class Batch:
    """b images and what is known of them. Labelled images come first.

    images: [b, channels, height, width] uint8, not augmented.
    index: [b] int64, position in the training set.
    labels: [b] int64, own or pseudo-label; -1 where there is none.
    weights: [b] float32, w_i z_(y_i); 0 where there is no label, 1 for labels in stage one.
    labeled: [b] bool, true where the label is the example's own.
    """

    images: Tensor
    index: Tensor
    labels: Tensor
    weights: Tensor
    labeled: Tensor

    def __len__(self) -> int:
        return len(self.images)


@dataclass
class Step:
    """One training step, as a consistency method sees it.

    student: the network in training; calling it on a view gives an `Output` with gradient.
    batch: the images and labels.
    weak, strong: uint8 images to normalised float views, randomly augmented anew at every call.
    view: the student's view of the batch, and `output` what the student says of it.
    number: optimiser steps taken so far in this stage, from 0.
    epoch: the same in epochs, a float.
    """

    student: Network
    batch: Batch
    weak: Callable[[Tensor], Tensor]
    strong: Callable[[Tensor], Tensor]
    number: int
    epoch: float
    _view: Tensor | None = None
    _output: Output | None = None

    @property
    def view(self) -> Tensor:
        if self._view is None:
            self._view = self.weak(self.batch.images)
        return self._view

    @property
    def output(self) -> Output:
        # Computed on first use: a method that mixes its inputs never pays for it.
        if self._output is None:
            self._output = self.student(self.view)
        return self._output


def weighted_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Mean over the batch of w_i z_(y_i) CE(f(x_i), y_i); a label of -1 adds 0.

    The mean is over all b examples, not over those with weight (Iscen et al., eq. 12).
    """
    losses = F.cross_entropy(logits.float(), labels, ignore_index=-1, reduction="none")
    return (losses * weights).mean()


class Consistency(ABC):  # noqa: B024 - every method has a default
    """Base of every consistency method. As it stands it adds nothing: the labels alone.

    Attributes:
        heads: heads the student must have (2 for Mean Teacher's second head).
        needs_unlabeled: whether stage one must show the unlabelled images as well.
        teacher: the averaged network, measured beside the student; None without one.
    """

    heads: int = 1
    needs_unlabeled: bool = False
    teacher: nn.Module | None = None

    def extend(self, network: Network) -> None:  # noqa: B027
        """Give the network modules that this method needs besides, before its optimiser is made."""

    def begin_stage(self, student: Network, num_examples: int) -> None:  # noqa: B027
        """Start a stage. A teacher restarts here as a copy of the student.

        num_examples: size of the training set, for methods that remember every example.
        """

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Named scalar terms of the loss, 'supervised' (the labels' weighted loss) among them."""
        batch = step.batch
        return {
            "supervised": weighted_cross_entropy(step.output.logits, batch.labels, batch.weights)
        }

    def after_step(self, student: Network, number: int) -> None:  # noqa: B027
        """Called after the optimiser's step; `number` counts from 0 within the stage."""

    def state(self) -> dict[str, Tensor]:
        """Every tensor a resumed run needs, besides the student. Saved with the checkpoint."""
        if self.teacher is None:
            return {}
        return {f"teacher.{k}": v for k, v in self.teacher.state_dict().items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """The reverse of `state`, after `begin_stage`."""
        if self.teacher is not None:
            prefix = "teacher."
            self.teacher.load_state_dict(
                {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            )
