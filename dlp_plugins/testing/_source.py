"""check_source: pseudo-labels of every image, given labels kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dlp_plugins.propagation import Propagator, PseudoLabels
from dlp_plugins.registry import sources
from dlp_plugins.sources.contract import Refresh, Source
from dlp_plugins.testing._common import built, require, require_tensor

IMAGES, CLASSES = 60, 3


def check_source(source: str | Source, **parameters: Any) -> None:
    """Check a source of pseudo-labels: labels with certainties, given ones kept, no chance.

    Raises:
        AssertionError: the sentence says what is wrong.
    """
    made: Source = built(sources, source, parameters)
    where = type(made).__name__
    refresh = _refresh(made.needs_teacher)
    before = refresh.labels.clone()
    found = made.pseudo_labels(refresh)
    if not isinstance(found, PseudoLabels):
        raise AssertionError(f"{where}: it must return PseudoLabels, not {type(found).__name__}")
    labels = require_tensor(found.labels, (IMAGES,), f"{where}: labels", torch.int64)
    require(
        ((labels >= -1) & (labels < CLASSES)).all(),
        f"{where}: labels must lie in -1..{CLASSES - 1}",
    )
    certainty = require_tensor(found.certainty, (IMAGES,), f"{where}: certainty")
    require(((certainty >= 0) & (certainty <= 1)).all(), f"{where}: certainties must lie in 0..1")
    require_tensor(found.probabilities, (IMAGES, CLASSES), f"{where}: probabilities")
    require_tensor(found.class_weights, (CLASSES,), f"{where}: class weights")
    given = before >= 0
    require(torch.equal(refresh.labels, before), f"{where}: it changes the labels it is given")
    require(
        torch.equal(labels[given], before[given]) and bool((certainty[given] == 1).all()),
        f"{where}: a labelled image must keep its label, with certainty 1",
    )
    again = made.pseudo_labels(replace(refresh, scores=found.scores))
    require(
        torch.equal(again.labels, labels),
        f"{where}: pseudo-labels of the same network differ, with the last scores to start from",
    )


def _refresh(teacher: bool) -> Refresh:
    """Three groups of images on the axes; what a network makes of them is what it is given."""
    random = torch.Generator().manual_seed(0)
    truth = torch.arange(IMAGES) % CLASSES
    images = torch.eye(CLASSES)[truth] + 0.2 * torch.rand(IMAGES, CLASSES, generator=random)
    labels = torch.where(torch.arange(IMAGES) < 2 * CLASSES, truth, -1)

    def describe(network: nn.Module) -> Tensor:
        return network(images)

    return Refresh(
        student=nn.Identity(),
        teacher=nn.Tanh() if teacher else None,
        describe=describe,
        predict=lambda network: describe(network).softmax(dim=1),
        propagator=Propagator.default(k=5),
        labels=labels,
        num_classes=CLASSES,
        indices=torch.arange(IMAGES),
    )
