"""Descriptors and a few labels in, pseudo-labels out; nothing of networks, data sets or training.

>>> import torch
>>> from dlp_plugins.propagation import propagate
>>> descriptors = torch.tensor([[1.0, 0.1], [1.0, 0.2], [0.1, 1.0], [0.2, 1.0]])
>>> propagate(descriptors, torch.tensor([0, -1, 1, -1]), num_classes=2, k=1).labels.tolist()
[0, 0, 1, 1]
"""

from dlp_plugins.inputs import UNLABELED
from dlp_plugins.propagation._inverse import Among, influence, influence_among, influence_blocks
from dlp_plugins.propagation.class_shares import ClassShares, equal_shares
from dlp_plugins.propagation.health import Convergence, Health
from dlp_plugins.propagation.propagator import Propagator, propagate
from dlp_plugins.propagation.pseudo_labels import (
    Assignment,
    CertaintyScale,
    PseudoLabels,
    apply_given_labels,
    label_matrix,
)

__all__ = [
    "UNLABELED",
    "Among",
    "Assignment",
    "CertaintyScale",
    "ClassShares",
    "Convergence",
    "Health",
    "Propagator",
    "PseudoLabels",
    "apply_given_labels",
    "equal_shares",
    "influence",
    "influence_among",
    "influence_blocks",
    "label_matrix",
    "propagate",
]
