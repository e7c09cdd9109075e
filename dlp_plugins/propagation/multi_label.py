"""Several labels for one point: each class by itself, with a threshold of its own.

Shapes: n points, c classes, w of them at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dlp_plugins.graph import Graph
from dlp_plugins.inputs import check_descriptors, to_descriptors
from dlp_plugins.notebook.html import table
from dlp_plugins.propagation.beliefs import Beliefs, best_labels, soft_given, to_prior
from dlp_plugins.propagation.health import Convergence
from dlp_plugins.propagation.propagator import Propagator
from dlp_plugins.refiners.contract import Given
from dlp_plugins.units import counts_by_class


@dataclass(frozen=True)
class MultiLabels:
    """Labels of n points, of which each may have several.

    labels: [n, c] bool; a labelled point keeps its own.
    scores: [n, c] float32, the solver's Z; not normalised over classes.
    thresholds: [c] float32, score from which a point has a class; infinite for a class without a
        label.
    reached: [n] bool, whether some label reached the point over the graph, or it has one.
    convergence: how well the solver solved for these scores.
    """

    labels: Tensor
    scores: Tensor
    thresholds: Tensor
    reached: Tensor
    convergence: Convergence = field(default_factory=Convergence)

    def _repr_html_(self) -> str:
        """For a notebook: how many labels there are."""
        per_point = self.labels.sum(dim=1)
        n, c = self.labels.shape
        most = int(per_point.max()) if n else 0
        rows = [
            ("labels per point", f"{float(per_point.double().mean()):.2f}, at most {most}"),
            ("points per class", counts_by_class(self.labels.sum(dim=0).tolist())),
            ("points no label reaches", f"{int((~self.reached).sum()):,}"),
        ]
        return table(f"Several labels each for {n:,} points, {c:,} classes", rows)


def propagate_multi_label(
    descriptors: Any,
    labels: Any,
    *,
    propagator: Propagator | None = None,
    prior: Any = None,
    prior_weight: float = 1.0,
    **parameters: Any,
) -> MultiLabels:
    """Spread labels of which a point may have several.

    Every class is spread by itself: Y_ij is the weight of label j of point i over the sum of its
    column. Scores are not divided by row sums, and nothing is refined. A class goes to the same
    share of the unlabelled points as it has of the labelled ones, those with the largest scores
    (PCut; Yang, SIGIR 2001): so labelled points should be a fair sample.

    Args:
        descriptors: as `propagate` takes them.
        labels: [n, c] weights at least 0 of each label (1 for a plain one; dense or sparse), a row
            of zeros for a point that is not labelled.
        propagator, parameters: as `propagate` takes them.
        prior, prior_weight: as `propagate` takes them.

    Raises:
        As `propagate`.
    """
    if propagator is not None and parameters:
        raise TypeError("parameters belong to the default components; give them or a propagator")
    x, given = to_descriptors(descriptors), soft_given(labels, normalize=False)
    n, c = len(x), given.distributions.shape[1]
    check_descriptors(x)
    beliefs = Beliefs(given, None if prior is None else to_prior(prior, prior_weight, n, c))
    made = propagator or Propagator.default(**parameters)
    return spread(made, made.build_graph(x), beliefs, c)


def spread(propagator: Propagator, graph: Graph, beliefs: Beliefs, num_classes: int) -> MultiLabels:
    """Of the nodes of a graph, whose labels `beliefs` holds."""
    given = beliefs.given
    assert given is not None
    known = best_labels(given, graph.num_nodes).to(graph.device)
    y = beliefs.to(graph.device).label_matrix(known, num_classes)
    solution = propagator.solve(propagator.solver.prepare(graph), y)
    z = solution.scores
    found, thresholds = choose_labels(z, given)
    reached = (z > 0).any(dim=1)
    reached[given.points.to(z.device)] = True
    return MultiLabels(found, z, thresholds, reached, Convergence.of(solution))


def choose_labels(scores: Tensor, given: Given, start: int = 0) -> tuple[Tensor, Tensor]:
    """Labels [n, w] bool and thresholds [w] of the classes from `start` on, from Z [n, w].

    With s_j the share of the labelled points that have class j, it goes to the round(s_j n_u), at
    least one, of the n_u unlabelled points with the largest positive scores; points with the same
    score as the last of them have it too.
    """
    n, w = scores.shape
    points = given.points.to(scores.device)
    own = given.distributions[:, start : start + w].to(scores.device) > 0
    unlabeled = torch.ones(n, dtype=torch.bool, device=scores.device)
    unlabeled[points] = False
    z = scores[unlabeled]
    counts = (own.double().mean(dim=0) * len(z)).round().long()
    thresholds = torch.full((w,), torch.inf, device=scores.device)
    for j in range(w):
        if own[:, j].any():
            k = min(max(1, int(counts[j])), len(z))
            least = torch.finfo(z.dtype).tiny
            thresholds[j] = z[:, j].topk(k).values[-1].clamp(min=least) if k else least
    labels = scores >= thresholds
    labels[points] = own
    return labels, thresholds
