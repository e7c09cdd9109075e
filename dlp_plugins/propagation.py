"""Descriptors and a few labels in, pseudo-labels out: graph, solver, weighter, balancer.

Knows nothing of networks, data sets or training. Shapes: n points, d numbers each, c classes.

>>> import torch
>>> from dlp_plugins.propagation import propagate
>>> descriptors = torch.tensor([[1.0, 0.1], [1.0, 0.2], [0.1, 1.0], [0.2, 1.0]])
>>> propagate(descriptors, torch.tensor([0, -1, 1, -1]), num_classes=2, k=1).labels.tolist()
[0, 0, 1, 1]
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from dlp_plugins import registry
from dlp_plugins.affinities.contract import Affinity
from dlp_plugins.balancers.contract import Balancer
from dlp_plugins.errors import ConvergenceError, ConvergenceWarning, FeatureError, LabelError
from dlp_plugins.graph import Graph, Neighbors, assemble
from dlp_plugins.graphs.contract import GraphBuilder
from dlp_plugins.solvers.contract import Solution, Solver
from dlp_plugins.weighters.contract import Weighter

UNLABELED = -1
# Below this a row of scores is rounding, not evidence; dividing by its sum would amplify noise.
TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Health:
    """Whether a propagation can be trusted; written to the metrics at every refresh.

    residual: largest relative residual over the classes (None where nothing was solved).
    iterations: products with the graph.
    converged: every class within the solver's tolerance.
    unreached: unlabelled points that no label reaches; their certainty is 0, their label -1.
    unlabeled_components: connected components of the graph without a labelled point.
    empty_classes: classes that no point carries, labelled or pseudo-labelled.
    """

    residual: float | None
    iterations: int
    converged: bool
    unreached: int
    unlabeled_components: int
    empty_classes: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class PseudoLabels:
    """What the network trains on.

    labels: [n] int64; a labelled point keeps its own, an unreached one has -1.
    certainty: [n] float32 in 0..1; 1 for a labelled point, 0 for an unreached one.
    class_weights: [c] float32 from the balancer.
    probabilities: [n, c] float32, rows sum to 1, or are 0 where no label reaches.
    scores: [n, c] float32, the solver's Z; None when the labels came from a network.
    """

    labels: Tensor
    certainty: Tensor
    class_weights: Tensor
    probabilities: Tensor
    health: Health
    scores: Tensor | None = None

    @property
    def weights(self) -> Tensor:
        """[n] float32: w_i z_(y_i), the factor of each example's loss; 0 for an unreached point."""
        return self.certainty * self.class_weights[self.labels.clamp(min=0)]


@dataclass(frozen=True)
class Propagator:
    """The components of one propagation, put together.

    mutual: an edge needs both ends to choose each other; by default one is enough (W = A + A^T).
    """

    graph: GraphBuilder
    affinity: Affinity
    solver: Solver
    weighter: Weighter
    balancer: Balancer
    mutual: bool = False

    @classmethod
    def default(cls, **parameters: Any) -> Propagator:
        """The paper's components; `parameters` go to whichever of them declares that name."""
        chosen: dict[str, Any] = {}
        names = {
            "graph": "exact", "affinity": "inner_product", "solver": "cg",
            "weighter": "entropy", "balancer": "inverse_frequency",
        }  # fmt: skip
        left = dict(parameters)
        for part, name in names.items():
            kind = registry.of_kind(part)
            own = {p.name for p in kind.get(name).parameters} & set(left)
            chosen[part] = kind.build(name, **{p: left.pop(p) for p in own})
        if left:
            raise TypeError(f"no component takes {', '.join(sorted(left))}")
        return cls(**chosen)

    def build_graph(self, descriptors: Tensor) -> Graph:
        """Neighbours, affinity, symmetric normalisation of descriptors [n, d] (normalised here)."""
        check_descriptors(descriptors)
        # a zero vector stays zero here, and so becomes a node without edges
        unit = torch.nn.functional.normalize(descriptors.float(), dim=1)
        return self.connect(self.graph.neighbors(unit))

    def connect(self, neighbors: Neighbors) -> Graph:
        """The graph of neighbour lists."""
        weights = self.affinity.weights(neighbors)
        return assemble(neighbors.indices, weights, self.mutual, neighbors.order)

    def __call__(
        self, descriptors: Tensor, labels: Tensor, num_classes: int, initial: Tensor | None = None
    ) -> PseudoLabels:
        """Pseudo-labels for descriptors [n, d] and labels [n] (-1 where there is none).

        `initial` [n, c]: an earlier propagation's scores, to start the solver from.
        """
        check_labels(labels, num_classes, len(descriptors))
        graph = self.build_graph(descriptors)
        return self.spread(graph, labels.to(graph.device), num_classes, initial)

    def spread(
        self, graph: Graph, labels: Tensor, num_classes: int, initial: Tensor | None = None
    ) -> PseudoLabels:
        """Pseudo-labels on a graph that is already built."""
        check_labels(labels, num_classes, graph.num_nodes)
        y = label_matrix(labels, num_classes)
        solution = self.solver.solve(self.solver.prepare(graph), y, initial)
        return self.weigh(to_probabilities(solution.scores), labels, solution, graph)

    def weigh(
        self,
        probabilities: Tensor,
        labels: Tensor,
        solution: Solution | None = None,
        graph: Graph | None = None,
    ) -> PseudoLabels:
        """Certainty and balance for class probabilities [n, c], whoever made them.

        With a network's own predictions this is the paper's 'Network prediction' baseline.
        """
        num_classes = probabilities.shape[1]
        assigned, certainty = settle(*self.judge(probabilities), labels)
        counts = torch.bincount(assigned[assigned >= 0], minlength=num_classes)
        unreached = int((assigned < 0).sum())
        # Where labels reach every point no component is without one; but an approximate solver may
        # reach further than labels do.
        all_reached = unreached == 0 and not self.solver.approximate
        health = Health(
            residual=None if solution is None else float(solution.residual.max()),
            iterations=0 if solution is None else solution.iterations,
            converged=True if solution is None else solution.converged,
            unreached=unreached,
            unlabeled_components=0
            if graph is None or all_reached
            else unlabeled_components(graph, labels),
            empty_classes=int((counts == 0).sum()),
        )
        return PseudoLabels(
            labels=assigned,
            certainty=certainty,
            class_weights=self.balancer.class_weights(counts),
            probabilities=probabilities,
            health=health,
            scores=None if solution is None else solution.scores,
        )

    def judge(self, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        """Best class [n] (-1 for a row of zeros) and certainty [n] of rows [n, c], row by row."""
        reached = probabilities.sum(dim=1) > 0
        certainty = torch.zeros(len(reached), device=probabilities.device)
        certainty[reached] = self.weighter.certainty(probabilities[reached])
        return torch.where(reached, probabilities.argmax(dim=1), UNLABELED), certainty


def propagate(
    descriptors: Tensor,
    labels: Tensor,
    num_classes: int | None = None,
    *,
    propagator: Propagator | None = None,
    on_unconverged: Literal["warn", "raise", "ignore"] = "warn",
    **parameters: Any,
) -> PseudoLabels:
    """Spread a few labels over a nearest-neighbour graph (Iscen et al., CVPR 2019).

    Args:
        descriptors: [n, d] floats, L2-normalised here; a zero vector becomes a node without edges.
        labels: [n] int64, -1 where unlabelled.
        num_classes: c; by default the largest label plus one.
        propagator: the components; by default the paper's.
        on_unconverged: what to do when the solver stops short of its tolerance.
        parameters: of the default components (k, gamma, alpha, max_iterations, tolerance).

    Raises:
        FeatureError: NaN, infinity, wrong shape or no points.
        LabelError: a label outside -1..c-1, a wrong number of them, or none given.
        ConvergenceError: as asked by `on_unconverged`.
    """
    if num_classes is None:
        num_classes = int(labels.max()) + 1 if len(labels) else 0
    propagator = propagator or Propagator.default(**parameters)
    pseudo = propagator(descriptors, labels, num_classes)
    if not pseudo.health.converged and on_unconverged != "ignore":
        message = (
            f"the solver stopped after {pseudo.health.iterations} iterations at a relative "
            f"residual of {pseudo.health.residual:.1e}; raise max_iterations, or accept it: "
            "pseudo-labels are usually stable long before"
        )
        if on_unconverged == "raise":
            raise ConvergenceError(message)
        warnings.warn(message, ConvergenceWarning, stacklevel=2)
    return pseudo


def label_matrix(labels: Tensor, num_classes: int) -> Tensor:
    """Y [n, c] float32: each column the indicator of its labelled points over their number.

    A class without a labelled point gets a column of zeros.
    """
    y = torch.zeros(len(labels), num_classes, device=labels.device)
    points = (labels != UNLABELED).nonzero().squeeze(1)
    counts = torch.bincount(labels[points], minlength=num_classes)
    y[points, labels[points]] = 1.0 / counts[labels[points]]
    return y


def to_probabilities(scores: Tensor) -> Tensor:
    """Clamp scores [n, c] at 0 and divide rows by their sums; a row without evidence becomes 0."""
    probabilities = scores.clamp(min=0)
    total = probabilities.sum(dim=1, keepdim=True)
    return torch.where(total > TINY, probabilities / total, 0.0)


def settle(assigned: Tensor, certainty: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Labels and certainties [n] of all points: a labelled point keeps its own label, certainty 1;
    the others' certainties are divided by the largest of them.
    """
    labeled = labels != UNLABELED
    largest = certainty[~labeled].max() if (~labeled).any() else certainty.new_zeros(())
    scaled = certainty / largest if largest > 0 else certainty
    return torch.where(labeled, labels, assigned), torch.where(labeled, 1.0, scaled)


def check_descriptors(descriptors: Tensor) -> None:
    """Raise FeatureError unless descriptors are [n >= 1, d >= 1] and finite."""
    if descriptors.ndim != 2 or 0 in descriptors.shape:
        raise FeatureError(
            f"Descriptors must be [n, d] with at least one point; got {tuple(descriptors.shape)}."
        )
    finite = torch.isfinite(descriptors).all(dim=1)
    if not finite.all():
        bad = (~finite).nonzero().squeeze(1)
        raise FeatureError(
            f"{len(bad)} of {len(descriptors)} descriptors hold NaN or infinity; the first is row "
            f"{int(bad[0])}. Remove or mend those rows."
        )


def check_labels(labels: Tensor, num_classes: int, n: int) -> None:
    """Raise LabelError unless labels [n] lie in -1..c-1 and one at least is given."""
    if labels.ndim != 1 or len(labels) != n:
        raise LabelError(f"There are {n} points but labels of shape {tuple(labels.shape)}.")
    if labels.is_floating_point():
        raise LabelError(f"Labels must be integers; got {labels.dtype}.")
    bad = (labels < UNLABELED) | (labels >= num_classes)
    if bad.any():
        at = int(bad.nonzero()[0])
        raise LabelError(
            f"Label {int(labels[at])} of point {at} is outside 0..{num_classes - 1} "
            "(-1 means unlabelled)."
        )
    if not (labels != UNLABELED).any():
        raise LabelError("No point is labelled; label propagation needs at least one.")


def unlabeled_components(graph: Graph, labels: Tensor) -> int:
    """Connected components of the graph without a labelled point."""
    component = graph.components
    with_label = torch.unique(component[(labels != UNLABELED).cpu()])
    return int(component.max()) + 1 - len(with_label)
