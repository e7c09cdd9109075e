"""Labels that the rest contradicts count less: where some of the given labels are wrong.

Shapes: n points, c classes, m labels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dlp_plugins.embeddings.audit import Evidence, nodes_of, weights_of
from dlp_plugins.graph import Graph
from dlp_plugins.inputs import UNLABELED
from dlp_plugins.propagation.beliefs import PLAIN, Beliefs
from dlp_plugins.propagation.duplicates import Distinct
from dlp_plugins.propagation.leave_one_out import LeaveOneOut
from dlp_plugins.propagation.propagator import full_precision
from dlp_plugins.refiners.contract import Given
from dlp_plugins.registry import EMBEDDINGS_ALPHA

ROUNDS = 3
LEAST = 1e-3  # of a weight: a class of which every label is doubted keeps some mass


@full_precision()
def trusted_beliefs(
    graph: Graph,
    labels: Tensor,
    num_classes: int,
    distinct: Distinct | None = None,
    beliefs: Beliefs = PLAIN,
    alpha: float = EMBEDDINGS_ALPHA,
) -> Beliefs:
    """The labels with weights w_i (1 - doubt_i), w_i those that they have.

    Doubts are those of leave-one-out on the graph alone (`audit_by_graph`); in each of three rounds
    the labels are left out again, the others weighted by the round before. A label that is the only
    one of its class keeps its weight.

    Args:
        labels: [n] int64 of the points, -1 where there is none.
        distinct: which node of the graph each point is; by default each is its own.
        beliefs: soft labels, weights and prior scores of the points.
    """
    points = (labels != UNLABELED).nonzero().squeeze(1)
    prepared = LeaveOneOut.of(graph, nodes_of(distinct, points), alpha=alpha)
    own = weights = weights_of(beliefs, points)
    for _ in range(ROUNDS):
        p = prepared(labels[points], num_classes, weights).probabilities.numpy()
        found = Evidence(points.numpy(), labels[points].numpy(), p, None, prepared).audit()
        doubt = torch.from_numpy(np.nan_to_num(found.doubt))
        weights = own * (1 - doubt).clamp(min=LEAST)
    given = beliefs.given or Given.from_labels(labels, num_classes)
    order = torch.searchsorted(points, given.points.cpu())
    trusted = Given(given.points, given.distributions, weights[order].to(given.weights))
    return Beliefs(trusted, beliefs.prior)
