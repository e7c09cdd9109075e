"""Classes that are only named: their prototypes, such as text embeddings, join the graph.

Zero-shot label propagation (Stojnic, Kalantidis and Tolias, CVPR 2024). Nodes are n images, then c
prototypes. Each image is linked to its k nearest images, with weight max(x_i . x_j, 0), and to its
k nearest prototypes, with max(x_i . t_j, 0)^gamma; W = A + A^T, Wn = D^(-1/2) W D^(-1/2), and
(I - alpha Wn) z_j = e_j with the prototype of class j as source; an image's label is argmax_j z_ij.

Shapes: n images, c classes, d numbers each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from dlp_plugins._threads import row_slices
from dlp_plugins.affinities.contract import Affinity
from dlp_plugins.errors import FeatureError
from dlp_plugins.graph import Neighbors
from dlp_plugins.graphs.contract import GraphBuilder
from dlp_plugins.inputs import (
    BLOCK_ENTRIES,
    UNLABELED,
    check_labels,
    to_descriptors,
    to_labels,
    unit_rows,
)
from dlp_plugins.propagation import Assignment, Propagator, PseudoLabels
from dlp_plugins.propagation.beliefs import Beliefs
from dlp_plugins.propagation.propagator import full_precision
from dlp_plugins.refiners.contract import Given
from dlp_plugins.registry import PROPAGATION, solvers

K, GAMMA, ALPHA = 5, 5.0, 0.3  # the paper's
PARTS = {"transform": "none", "normalizer": "clamp", "refiner": "none"}
AnyAssignment = TypeVar("AnyAssignment", bound=Assignment)


@dataclass(frozen=True)
class PrototypeSearch(GraphBuilder):
    """Two searches: images among images by `images`, then images among the last `count` rows.

    Neighbours of an image are `images.k` images, then the nearest prototypes, as many or all. A
    prototype has none of its own: its edges are those that images have to it.
    """

    images: GraphBuilder
    count: int

    @property
    def k(self) -> int:  # type: ignore[override]
        return self.images.k

    def neighbors(self, descriptors: Tensor) -> Neighbors:
        n = len(descriptors) - self.count
        x, t = descriptors[:n], descriptors[n:]
        own = self.images.neighbors(x)
        nearest = min(self.k, self.count)
        indices = own.indices.new_full((n, nearest), -1)
        similarities = x.new_empty(n, nearest)
        for rows in row_slices(n, self.count, BLOCK_ENTRIES):
            similarities[rows], at = (x[rows] @ t.T).topk(nearest, dim=1)
            indices[rows] = (at + n).to(indices)
        width = own.indices.shape[1] + nearest
        none = indices.new_full((self.count, width), -1)
        order = own.order
        if order is not None:
            order = torch.cat([order, torch.arange(n, n + self.count, device=order.device)])
        return Neighbors(
            torch.cat([torch.cat([own.indices, indices], dim=1), none]),
            torch.cat(
                [torch.cat([own.similarities, similarities], dim=1), x.new_zeros(*none.shape)]
            ),
            order,
        )


@dataclass(frozen=True)
class PrototypeAffinity(Affinity):
    """Edges among images by `images`; those to `count` prototypes max(x_i . t_j, 0)^gamma."""

    images: Affinity
    count: int
    gamma: float = GAMMA

    def weights(self, neighbors: Neighbors) -> Tensor:
        n = neighbors.num_nodes - self.count
        to_prototype = neighbors.indices >= n
        width = int(neighbors.indices.shape[1] - to_prototype[:n].sum(dim=1).max())
        among = Neighbors(neighbors.indices[:n, :width], neighbors.similarities[:n, :width])
        weights = torch.zeros_like(neighbors.similarities)
        weights[:n, :width] = self.images.weights(among)
        weights[:n, width:] = neighbors.similarities[:n, width:].clamp(min=0).pow(self.gamma)
        return weights


def with_prototypes(propagator: Propagator, count: int, gamma: float = GAMMA) -> Propagator:
    """The propagator for nodes of which the last `count` are prototypes."""
    return replace(
        propagator,
        graph=PrototypeSearch(propagator.graph, count),
        affinity=PrototypeAffinity(propagator.affinity, count, gamma),
    )


def node_labels(labels: Tensor, num_classes: int) -> Tensor:
    """[n + c]: those of the images, then each prototype's own class."""
    return torch.cat([labels, torch.arange(num_classes, device=labels.device)])


def node_beliefs(beliefs: Beliefs, points: int, num_classes: int) -> Beliefs:
    """With a label of weight 1 for each prototype, where labels are not plain."""
    if beliefs.given is None:
        return beliefs
    own = Given.from_labels(torch.arange(num_classes), num_classes)
    own = replace(own, points=own.points + points)
    both = zip(vars(beliefs.given).values(), vars(own).values(), strict=True)
    return replace(beliefs, given=Given(*(torch.cat([a, b.to(a)]) for a, b in both)))


def images_only(found: AnyAssignment, n: int) -> AnyAssignment:
    """Without the prototypes, which come after the n images."""
    occurring = found.labels[:n].unique()
    empty = len(found.class_weights) - int((occurring != UNLABELED).sum())
    health = replace(found.health, empty_classes=empty)
    return replace(
        found,
        labels=found.labels[:n],
        certainty=found.certainty[:n],
        reached=found.reached[:n],
        health=health,
    )


@dataclass(frozen=True)
class FittedPrototypes:
    """Labels of n images from prototypes, and scores of new images.

    found: of the images.
    nodes: [n + c, d] float32, unit rows of images, then of prototypes.
    scores: D^(-1/2) Z [n + c, c].
    """

    found: PseudoLabels
    nodes: Tensor
    scores: Tensor
    k: int
    gamma: float

    @full_precision()
    def predict(self, descriptors: Any) -> Tensor:
        """Scores [b, c] of new images [b, d]: z_i = sum_j W_ij D_j^(-1/2) z_j, in proportion.

        The equation's own for a point without a label, W_ij its edges to the k nearest images and
        prototypes. New images change neither the old ones nor each other.
        """
        x = unit_rows(to_descriptors(descriptors))
        n = len(self.found.labels)
        found = x.new_zeros(len(x), self.scores.shape[1])
        for rows in row_slices(len(x), len(self.nodes), BLOCK_ENTRIES):
            s = (x[rows] @ self.nodes.T).clamp(min=0)
            for part, power in ((slice(0, n), 1.0), (slice(n, None), self.gamma)):
                near, at = s[:, part].topk(min(self.k, s[:, part].shape[1]), dim=1)
                found[rows] += torch.einsum("bk,bkc->bc", near**power, self.scores[part][at])
        return found


def propagate_prototypes(
    descriptors: Any,
    prototypes: Any,
    labels: Any = None,
    *,
    k: int = K,
    gamma: float = GAMMA,
    alpha: float = ALPHA,
    **parameters: Any,
) -> PseudoLabels:
    """Labels of images from class prototypes, with no labelled image or with some.

    A labelled image is a source of its class beside the prototype, each as strong as the other.

    Args:
        descriptors: [n, d] real numbers (tensor, NumPy array, list), L2-normalised here.
        prototypes: [c, d], one for each class, from the same model (CLIP's text embeddings, say).
        labels: [n] integers in -1..c-1, -1 where there is none; by default no image is labelled.
        k: neighbours of each image among images, and among prototypes.
        gamma: power of the similarity to a prototype.
        alpha: how far labels spread; a solver given as a component keeps its own.
        parameters: as `Propagator.default` takes them (solver, graph, normalizer, ...).

    Raises:
        FeatureError: NaN, infinity or a wrong shape.
        LabelError: a label outside -1..c-1, or a wrong number of them.
        ParameterError: a parameter out of its range.

    >>> import numpy as np
    >>> x = np.array([[1.0, 0.1], [1.0, 0.2], [0.1, 1.0], [0.2, 1.0]])
    >>> propagate_prototypes(x, np.eye(2), k=1).labels.tolist()
    [0, 0, 1, 1]
    """
    return fit_prototypes(
        descriptors, prototypes, labels, k=k, gamma=gamma, alpha=alpha, **parameters
    ).found


def fit_prototypes(
    descriptors: Any,
    prototypes: Any,
    labels: Any = None,
    *,
    k: int = K,
    gamma: float = GAMMA,
    alpha: float = ALPHA,
    **parameters: Any,
) -> FittedPrototypes:
    """As `propagate_prototypes`, with what new images need."""
    x, t = to_descriptors(descriptors), to_descriptors(prototypes)
    if x.shape[1] != t.shape[1]:
        raise FeatureError(
            f"Prototypes have {t.shape[1]} numbers each and descriptors {x.shape[1]}; both must "
            "come from the same model."
        )
    n, c = len(x), len(t)
    own = torch.full((n,), UNLABELED) if labels is None else to_labels(labels)
    own = node_labels(own, c)
    check_labels(own, c, n + c)
    parts: dict[str, Any] = {**PARTS, **parameters}
    solver = parts.get("solver", PROPAGATION["solver"])
    if isinstance(solver, str):  # a component keeps its own; some solvers have neither
        known = {p.name for p in solvers.get(solver).parameters}
        defaults = {"alpha": alpha, "max_iterations": 100}
        parts = {key: value for key, value in defaults.items() if key in known} | parts
    made = Propagator.default(k=k, gamma=1.0, **parts)
    nodes = torch.cat([unit_rows(x), unit_rows(t).to(x.device)])
    found = with_prototypes(made, c, gamma)(nodes, own.to(x.device), c)
    assert found.scores is not None
    assert found.graph is not None
    degree = found.graph.degree[:, None]
    images = replace(
        images_only(found, n), probabilities=found.probabilities[:n], scores=found.scores[:n]
    )
    scores = torch.where(degree > 0, found.scores / degree.sqrt(), 0.0)
    return FittedPrototypes(images, nodes, scores, k, gamma)
