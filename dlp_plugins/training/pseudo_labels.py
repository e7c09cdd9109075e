"""The labels that training uses at the moment: given ones in stage one, propagated ones after."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from dlp_plugins.datasets.contract import UNKNOWN
from dlp_plugins.propagation import PseudoLabels
from dlp_plugins.training.data import RunData


@dataclass(frozen=True)
class PseudoLabelState:
    """Label and weight of each of n training images, on the device.

    labels: [n] int64, -1 where there is none.
    weights: [n] float32, w_i z_(y_i); 0 where there is no label.
    certainty: [n] float32, w_i.
    class_weights: [c] float32, z_j.
    probabilities: [n, c] float32, kept for soft labels alone.
    scores: [n, c] float32, kept to start the next solve from.
    """

    labels: Tensor
    weights: Tensor
    certainty: Tensor
    class_weights: Tensor
    probabilities: Tensor | None = None
    scores: Tensor | None = None

    @classmethod
    def given(cls, data: RunData) -> Self:
        """Stage one: the given labels, each with weight 1."""
        labels = data.known_labels
        weights = (labels >= 0).float()
        classes = torch.ones(data.dataset.num_classes, device=labels.device)
        return cls(labels, weights, weights.clone(), classes)

    @classmethod
    def propagated(cls, pseudo: PseudoLabels, *, soft: bool, keep_scores: bool) -> Self:
        """Stage two: what a source made of the network as it is."""
        return cls(
            pseudo.labels,
            pseudo.weights,
            pseudo.certainty,
            pseudo.class_weights,
            pseudo.probabilities if soft else None,
            pseudo.scores if keep_scores else None,
        )

    def without(self, positions: Iterable[int]) -> Self:
        """No label and no weight for images at these positions."""
        at = list(positions)
        changed = {name: getattr(self, name).clone() for name in ("labels", "weights", "certainty")}
        changed["labels"][at] = UNKNOWN
        changed["weights"][at] = changed["certainty"][at] = 0
        return replace(self, **changed)

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds, so that a resume in mid-epoch needs no new solve."""
        return {k: v for k, v in vars(self).items() if v is not None}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], device: torch.device) -> Self:
        """The reverse of `tensors`."""
        return cls(**{k: v.to(device) for k, v in tensors.items()})

    def arrays(self) -> dict[str, Any]:
        """What pseudo_labels.npz holds."""
        names = ("labels", "weights", "certainty")
        return {name: getattr(self, name).cpu().numpy() for name in names}


def accuracy(pseudo: PseudoLabels, truth: Tensor, unlabeled: Tensor) -> float | None:
    """Percent of unlabelled examples whose pseudo-label is true; None where no truth is known.

    One that no label reaches counts as wrong.
    """
    unlabeled = unlabeled.to(truth.device)
    known = unlabeled[truth[unlabeled] >= 0]
    if len(known) == 0:
        return None
    return 100.0 * float((pseudo.labels[known] == truth[known]).double().mean())


def mean_certainty(pseudo: PseudoLabels, unlabeled: Tensor) -> float:
    """Mean certainty of the unlabelled examples."""
    return float(pseudo.certainty[unlabeled.to(pseudo.certainty.device)].mean())
