"""How likely each label of a view is right: what the column `probability` of `dlp propagate` is.

Shapes: n points, m nodes of the graph, c classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dlp_plugins.inputs import UNLABELED
from dlp_plugins.labeling.live import Space, View, among_present
from dlp_plugins.propagation.calibration import Calibration, calibrate, fixed
from dlp_plugins.propagation.propagator import full_precision
from dlp_plugins.refiners.none import NoRefiner


def usual(space: Space, view: View) -> Calibration | None:
    """What holds on other data with so many labels per class; None without a label."""
    present, labels = among_present(view.nodes, view.probabilities.shape[1])
    if not len(present):
        return None
    per_class = int((labels != UNLABELED).sum()) / len(present)
    refined = not isinstance(space.propagator.refiner, NoRefiner)
    return fixed(per_class, refined, "not calibrated yet")


@full_precision()
def calibrated(space: Space, view: View) -> Calibration | None:
    """By cross-validation on the labels of now: up to three propagations; None with one class."""
    present, labels = among_present(view.nodes, view.probabilities.shape[1])
    if len(present) < 2:
        return None
    return calibrate(space.propagator, space.graph, space.descriptors, labels, len(present))


def probability(space: Space, view: View, calibration: Calibration | None) -> Tensor:
    """[n] float32: 1 for a label that somebody gave; 0 where there is none, or one class alone."""
    q = view.probabilities
    found = torch.zeros(len(q))
    if calibration is not None and int(q.any(dim=0).sum()) > 1:
        found = calibration.probability(q, q.argmax(dim=1))
    expanded = space.distinct.expand(found)
    return torch.where(view.given != UNLABELED, 1.0, expanded)
