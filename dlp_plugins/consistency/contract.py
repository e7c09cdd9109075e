"""What a consistency method is: what the loss of a batch is made of besides the labels.

A method sees one batch at a time (`Step`) and returns named loss terms; their sum is what the
network descends. It may keep a teacher and update it after each step.

What a weight means. In stage one the sum of a method's terms is the loss of its paper on a batch
with `num_labeled` labelled images and others without a label, so that a weight has the meaning and
the default of the paper. The papers average the labels' cross entropy in two ways: over the whole
batch (Mean Teacher, the Pi-model, temporal ensembling), or over its labelled images (FixMatch, ICT,
VAT); `Consistency.labels_mean` names the way, and `supervised_loss` follows it. In stage two nearly
every image carries a label or a pseudo-label. There a labelled image of the paper is one of those,
with the factor w_i z_(y_i) of Iscen et al., and both ways are their equation 12, the mean over the
batch. "The unlabelled images" are in both stages those without a label of their own.

No waiting. On a GPU a step must not wait for the device: `losses` reads no value of a tensor on the
host (`.item()`, `float(t)`, `if t:`), has no shape that depends on one (boolean masks, `nonzero`),
and copies nothing from the host (`torch.tensor(...)`). `Batch.num_labeled` and slices serve instead
of masks. tests/fake_cuda checks it.

Several processes. Each takes its share of the labelled and of the unlabelled images of a batch, and
the gradients are averaged. The trainer multiplies each term by the process's part of the images
that it is a mean over (`labels_mean`, `terms_mean`), so that the sum is that of the whole batch. A
method that remembers examples passes on what it remembers by `Step.gather`.

The family `usb` is the exception to both: its weights are USB's own, and its losses may wait.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from dlp_plugins.consistency._terms import cross_entropy
from dlp_plugins.network import Network, Output

LabelsMean = Literal["batch", "labeled"]
TermsMean = Literal["batch", "unlabeled"]
ImagesMean = LabelsMean | TermsMean


class Counts(NamedTuple):
    """Images of a batch: how many carry a label of their own, and how many there are."""

    labeled: int
    size: int


@dataclass(frozen=True)
class Batch:
    """b images and what is known of them. Labelled images come first.

    images: [b, ...], not augmented.
    index: [b] int64, position in the training set.
    labels: [b] int64, own or pseudo-label; -1 where there is none.
    certainty: [b] float32 w_i; 1 for an own label, 0 where no label reaches (and in stage one
        wherever there is no label).
    class_weights: [c] float32 z_j of the balancer; ones in stage one.
    num_labeled: the first so many have a label of their own.
    propagated: the others carry pseudo-labels (stage two), or nothing (stage one).
    probabilities: [b, c] float32 p_ij, the soft pseudo-labels to train on; None: train on `labels`.
        The rows of labelled images are not read: they keep their own label.
    whole: of all processes, where this is one process's share; None where it is everything.
    """

    images: Tensor
    index: Tensor
    labels: Tensor
    certainty: Tensor
    class_weights: Tensor
    num_labeled: int
    propagated: bool = False
    probabilities: Tensor | None = None
    whole: Counts | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_known(self) -> int:
        """So many images, the first ones, may carry a label: own in stage one, any in stage two."""
        return len(self) if self.propagated else self.num_labeled

    @property
    def share_known(self) -> float:
        """`num_known` as a share of the batch, of the whole one where this is a part."""
        labeled, size = self.whole or Counts(self.num_labeled, len(self))
        return (size if self.propagated else labeled) / max(size, 1)

    def part(self, of: ImagesMean) -> float:
        """The share of the whole batch's images of that kind that are here: 1 without others."""
        if self.whole is None:
            return 1.0
        labeled, size = self.whole
        here, everywhere = {
            "batch": (len(self), size),
            "labeled": (self.num_known, size if self.propagated else labeled),
            "unlabeled": (len(self) - self.num_labeled, size - labeled),
        }[of]
        return here / max(everywhere, 1)

    @property
    def targets(self) -> Tensor:
        """[b, c] float32 t_ij = w_i z_j p_ij, p_i one-hot for a hard label and 0 without any.

        With hard labels -sum_j t_ij log f_j(x_i) is w_i z_(y_i) CE(f(x_i), y_i).
        """
        classes = torch.arange(len(self.class_weights), device=self.labels.device)
        p = (self.labels[:, None] == classes).to(self.class_weights.dtype)
        if self.probabilities is not None:
            own = self.num_labeled
            p = torch.cat([p[:own], self.probabilities[own:]])
        return p * self.class_weights * self.certainty[:, None]


def unchanged(rows: Tensor) -> Tensor:
    """The rows of all processes where there is one."""
    return rows


@dataclass
class Step:
    """One training step, as a consistency method sees it.

    student: the network in training; calling it on a view gives an `Output` with gradient.
    batch: the images and labels.
    weak, strong: images as in the batch to float views, randomly augmented again at every call.
    view: the student's weak view of the batch, and `output` the student's output for it.
    number: optimiser steps taken so far in this stage, from 0.
    epoch: the same in epochs, a float.
    total_steps: optimiser steps of the whole stage.
    gather: rows [b, ...] of this process's images to those of all processes, in their order; all
        call it. A single process gets its own back.

    The trainer seeds torch's global generators before each step.
    """

    student: Network
    batch: Batch
    weak: Callable[[Tensor], Tensor]
    strong: Callable[[Tensor], Tensor]
    number: int
    epoch: float
    total_steps: int
    gather: Callable[[Tensor], Tensor] = unchanged
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


def supervised_loss(logits: Tensor, batch: Batch, mean: LabelsMean = "batch") -> Tensor:
    """The labels' weighted loss (1/m) sum_i w_i sum_j z_j p_ij (-log f_j(x_i)) of logits [b, c].

    With hard labels: (1/m) sum_i w_i z_(y_i) CE(f(x_i), y_i) (Iscen et al., eq. 12). m = b for the
    mean "batch"; for "labeled" m is the number of images that may carry a label: `num_labeled` in
    stage one, b in stage two (see the module's text).
    """
    count = len(batch) if mean == "batch" else batch.num_known
    return cross_entropy(logits, batch.targets).sum() / max(count, 1)


class Consistency(ABC):  # noqa: B024 - every method has a default
    """Base of every consistency method. As it stands it adds nothing: the labels alone.

    Attributes:
        heads: heads the student must have (2 for Mean Teacher's second head).
        needs_unlabeled: whether stage one must show the unlabelled images as well.
        labels_mean: over which images the method's paper averages the labels' loss.
        terms_mean: over which images its other terms are means.
        many_processes: whether it may be trained by several processes.
        teacher: the averaged network, measured beside the student; None without one.
    """

    heads: int = 1
    needs_unlabeled: bool = False
    labels_mean: LabelsMean = "batch"
    terms_mean: TermsMean = "batch"
    many_processes: bool = True
    teacher: nn.Module | None = None

    def extend(self, network: Network) -> None:  # noqa: B027
        """Give the network modules that this method needs besides, before its optimiser is made."""

    def begin_stage(  # noqa: B027
        self, student: Network, num_examples: int, total_steps: int
    ) -> None:
        """Start a stage. A teacher restarts here as a copy of the student.

        num_examples: size of the training set, for methods that remember every example.
        total_steps: optimiser steps of the stage, for ramps that are shares of it.

        A resumed run calls it as well, then `load_state`.
        """

    def after_refresh(self, student: Network, pseudo_labels: Any) -> None:  # noqa: B027
        """Called after the pseudo-labels were computed again, before the epoch that uses them.

        pseudo_labels: a `dlp_plugins.propagation.PseudoLabels` of all training images.
        """

    def begin_epoch(self, student: Network, epoch: int) -> None:  # noqa: B027
        """Called once before the first step of each epoch; `epoch` counts from 0 within the stage.

        A run that resumes in the middle of an epoch does not call it again for that epoch.
        """

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Named scalar terms of the loss, 'supervised' (the labels' weighted loss) among them."""
        return {"supervised": supervised_loss(step.output.logits, step.batch, self.labels_mean)}

    def mean_of(self, term: str) -> ImagesMean:
        """Over which images a term of `losses` is a mean."""
        return self.labels_mean if term == "supervised" else self.terms_mean

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
