"""The components of one propagation, put together.

Shapes: n points, d numbers each, c classes.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from pydantic import ValidationError
from torch import Tensor

from dlp_plugins import registry
from dlp_plugins._threads import row_slices
from dlp_plugins.affinities.contract import Affinity
from dlp_plugins.balancers.contract import Balancer
from dlp_plugins.errors import ConvergenceError, ConvergenceWarning, LabelError, ParameterError
from dlp_plugins.graph import Graph, Neighbors, assemble
from dlp_plugins.graphs.contract import GraphBuilder
from dlp_plugins.inputs import (
    UNLABELED,
    check_descriptors,
    check_labels,
    to_descriptors,
    unit_rows,
)
from dlp_plugins.normalizers.clamp import Clamp
from dlp_plugins.normalizers.contract import Normalizer
from dlp_plugins.processes.group import ALONE, Processes
from dlp_plugins.propagation._outputs import checked, checked_neighbors, checked_solution
from dlp_plugins.propagation._together import solve_together
from dlp_plugins.propagation.beliefs import PLAIN, Beliefs, to_beliefs
from dlp_plugins.propagation.calibration import calibrate
from dlp_plugins.propagation.class_shares import (
    EQUAL,
    ClassShares,
    equal_shares,
    estimate_shares,
    known_shares,
    to_class_shares,
)
from dlp_plugins.propagation.duplicates import find_distinct
from dlp_plugins.propagation.health import Convergence, Health
from dlp_plugins.propagation.pseudo_labels import (
    Assignment,
    CertaintyScale,
    PseudoLabels,
    apply_given_labels,
)
from dlp_plugins.propagation.unknown import background_reach, total_reach, unknown_scores
from dlp_plugins.refiners.contract import Empty, Given, Refined, Refiner
from dlp_plugins.refiners.none import NoRefiner
from dlp_plugins.solvers.contract import Operator, Solution, Solver
from dlp_plugins.transforms.contract import Transform, total_statistics
from dlp_plugins.weighters.contract import Weighter

ROW_SUM = 1e-3  # how far a row of probabilities may be from 1 by rounding
TRANSFORM_ENTRIES = 2**18  # numbers of a block of rows: its copies in float64 stay in cache


@contextmanager
def full_precision() -> Iterator[None]:
    """Neither autocast nor gradients: a search or a solve in bfloat16 finds other neighbours."""
    with (
        torch.no_grad(),
        torch.autocast("cpu", enabled=False),
        torch.autocast("cuda", enabled=False),
    ):
        yield


@dataclass(frozen=True)
class Propagator:
    """The components of one propagation; each step runs in float32, whatever the caller's mode.

    mutual: an edge needs both ends to choose each other; by default one is enough (W = A + A^T).
    certainty_scale: points over whose largest certainty all are divided, 'unlabeled' or 'all'.
    class_shares: of the classes among unlabelled points: 'equal', 'labels' (as frequent as among
        the labels), 'estimate', or a number > 0 per class.
    processes: those that share the work: the search by points, the solve by classes. All hold all
        descriptors, call every step in the same order, and get every result whole.
    """

    transform: Transform
    graph: GraphBuilder
    affinity: Affinity
    solver: Solver
    normalizer: Normalizer
    refiner: Refiner
    weighter: Weighter
    balancer: Balancer
    mutual: bool = False
    certainty_scale: CertaintyScale = "unlabeled"
    class_shares: ClassShares = EQUAL
    processes: Processes = ALONE

    @classmethod
    def default(cls, *, class_shares: Any = EQUAL, **parameters: Any) -> Propagator:
        """The paper's components, or others by key (solver='power', or a component).

        Other `parameters` go to whichever components declare that name.

        Raises:
            ParameterError: a value out of its range.
            RegistryError: no such component.
            TypeError: no component declares a parameter of that name.
        """
        given = registry.PROPAGATION.keys() & parameters.keys()
        chosen = registry.PROPAGATION | {part: parameters.pop(part) for part in given}
        parts, used = build_parts(chosen, parameters)
        if left := parameters.keys() - used:
            raise TypeError(f"no component takes {', '.join(sorted(left))}")
        return cls(**parts, class_shares=to_class_shares(class_shares))

    def check_shares(self) -> None:
        """Refuse sizes of the classes where no component takes them.

        Raises:
            ParameterError: another normalizer is needed.
        """
        blind = isinstance(self.normalizer, Clamp) and isinstance(self.refiner, NoRefiner)
        sizeless = type(self.solver).with_shares is Solver.with_shares
        if self.class_shares != EQUAL and blind and sizeless:
            raise ParameterError(
                "class_shares has no effect with normalizer 'clamp', refiner 'none' and solver "
                f"{type(self.solver).__name__}. Take normalizer=class_mass, for example."
            )

    @property
    def alpha(self) -> float:
        """How far labels spread: the solver's, or the default where it has none (`cut`)."""
        return float(getattr(self.solver, "alpha", registry.EMBEDDINGS_ALPHA))

    # -- the steps, in order ----------------------------------------------------------------------

    @full_precision()
    def apply_transform(self, descriptors: Tensor) -> Tensor:
        """F [n, d] float32: descriptors transformed, rows of unit length."""
        return self.fit_transform(descriptors)[0]

    @full_precision()
    def fit_transform(
        self, descriptors: Tensor, out: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """F [n, d] float32, into `out` if given, and the transform's statistics of all points."""
        n, dim = descriptors.shape
        blocks = list(row_slices(n, dim, TRANSFORM_ENTRIES))
        total = total_statistics(self.transform, (descriptors[rows] for rows in blocks))
        f = torch.empty_like(descriptors, dtype=torch.float32) if out is None else out
        for rows in blocks:
            f[rows] = self.transform_rows(descriptors[rows], total)
        return f, total

    @full_precision()
    def transform_rows(self, rows: Tensor, total: Tensor | None) -> Tensor:
        """Rows [b, d] float32 of F; `total` holds the transform's statistics of all points."""
        found = self.transform.apply(rows, total)
        return checked(found, self.transform, "rows", tuple(rows.shape))

    @full_precision()
    def find_neighbors(self, unit: Tensor) -> Neighbors:
        """The nearest others of each of n points, from unit rows [n, d] float32."""
        if self.processes.alone:
            found = self.graph.neighbors(unit)
        else:
            found = self.graph.neighbors_together(unit, self.processes)
        return checked_neighbors(found, self.graph, len(unit))

    @full_precision()
    def assemble_graph(self, neighbors: Neighbors) -> Graph:
        """The normalised graph of neighbour lists."""
        weights = self.affinities(neighbors)
        return assemble(neighbors.indices, weights, self.mutual, neighbors.order)

    @full_precision()
    def affinities(self, neighbors: Neighbors) -> Tensor:
        """[n, k] float32, a_ij >= 0 of neighbour lists."""
        shape = tuple(neighbors.indices.shape)
        found = self.affinity.weights(neighbors)
        return checked(found, self.affinity, "affinities", shape, low=0)

    def affinities_by_rows(
        self, blocks: Sequence[slice], lists: Callable[[slice], Neighbors]
    ) -> Iterator[Tensor]:
        """`affinities` of blocks of rows, as `Affinity.by_rows` takes them."""
        parts = self.affinity.by_rows(blocks, lists)
        for rows in blocks:
            with full_precision():
                found = next(parts)
            shape = tuple(lists(rows).indices.shape)
            yield checked(found, self.affinity, "affinities", shape, low=0)

    @full_precision()
    def solve(self, state: Any, y: Tensor, initial: Tensor | None = None) -> Solution:
        """Scores Z of a label matrix Y [n, c]; `state` is what the solver's `prepare` returned."""
        if self.processes.alone:
            found = self.solver.solve(state, y, initial)
        else:
            found = solve_together(self.solver, state, y, initial, self.processes)
        return checked_solution(found, self.solver, tuple(y.shape))

    @full_precision()
    def normalize(self, scores: Tensor, labels: Tensor, shares: Tensor) -> Tensor:
        """Class probabilities [n, c] of the scores [n, c] of all points, for shares pi [c]."""
        total = self.normalizer.fit(lambda: [(scores, labels == UNLABELED)], shares)
        found = self.normalizer.apply(scores, total, shares)
        return checked(found, self.normalizer, "probabilities", tuple(scores.shape), low=0)

    @full_precision()
    def refine(
        self,
        descriptors: Tensor,
        graph: Graph,
        probabilities: Tensor,
        labels: Tensor,
        shares: Tensor,
        given: Given | None = None,
        empty: Empty | None = None,
    ) -> Refined:
        """Better probabilities [n, c] from F [n, d] and the P [n, c] of the graph (overwritten).

        Args:
            shares: pi [c], of the classes among the unlabelled points.
            given: distributions and weights of the labelled points; by default plain ones.
            empty: makes the arrays of a refiner that works by blocks.
        """
        shape = tuple(probabilities.shape)
        given = Given.from_labels(labels, shape[1]) if given is None else given
        made: dict[str, Any] = {"empty": empty} if empty and self.refiner.by_blocks else {}
        found = self.refiner.refine(descriptors, graph, probabilities, given, shares, **made)
        q = checked(found.probabilities, self.refiner, "probabilities", shape, low=0)
        return replace(found, probabilities=q)

    @full_precision()
    def best_class(self, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        """Best class [n] (-1 for a row of zeros) and certainty [n] of rows [n, c], row by row."""
        reached = probabilities.sum(dim=1) > 0
        rows = probabilities[reached]
        certainty = torch.zeros(len(reached), device=probabilities.device)
        found = self.weighter.certainty(rows)
        certainty[reached] = checked(found, self.weighter, "certainties", (len(rows),), 0, 1)
        return torch.where(reached, probabilities.argmax(dim=1), UNLABELED), certainty

    @full_precision()
    def assign(
        self,
        best: Tensor,
        certainty: Tensor,
        labels: Tensor,
        num_classes: int,
        convergence: Convergence | None = None,
        graph: Operator | None = None,
        reached: Tensor | None = None,
    ) -> Assignment:
        """Given labels, class weights and health, after `best_class` of all points.

        Args:
            reached: [n] bool, points that some label reached over the graph; by default those that
                have a class. Others have certainty 0, also where a refiner gave them a class.
            convergence: None where nothing was solved.
            graph: None where labels came from a network.
        """
        reached = best != UNLABELED if reached is None else reached
        certainty = torch.where(reached, certainty, 0.0)
        assigned, certainty = apply_given_labels(best, certainty, labels, self.certainty_scale)
        counts = torch.bincount(assigned[assigned >= 0], minlength=num_classes)
        return Assignment(
            assigned,
            certainty,
            reached | (labels != UNLABELED),
            self.class_weights(counts),
            Health.of(
                reached, counts, labels, convergence or Convergence(),
                None if graph is None else lambda: graph.components, self.solver.approximate,
            ),
        )  # fmt: skip

    def class_weights(self, counts: Tensor) -> Tensor:
        """[c] float32 from the balancer, for counts [c] of the points of each class."""
        weights = self.balancer.class_weights(counts)
        return checked(weights, self.balancer, "class weights", tuple(counts.shape), low=0)

    # -- all of them, with all scores in memory --------------------------------------------------

    @full_precision()
    def build_graph(self, descriptors: Tensor) -> Graph:
        """Neighbours, affinity, symmetric normalisation of descriptors [n, d] (normalised here).

        A zero vector stays zero, and so becomes a node without edges.
        """
        check_descriptors(descriptors)
        return self.assemble_graph(self.find_neighbors(self.apply_transform(descriptors)))

    def __call__(
        self,
        descriptors: Tensor,
        labels: Tensor,
        num_classes: int,
        initial: Tensor | None = None,
        beliefs: Beliefs = PLAIN,
        calibrated: bool = False,
        unknown: bool = False,
        merge_equal: bool = False,
    ) -> PseudoLabels:
        """Pseudo-labels for descriptors [n, d] and labels [n] (-1 where there is none).

        `initial` [n, c]: an earlier propagation's scores, to start the solver from.
        `beliefs`: as `spread` takes them. `calibrated`, `unknown`: as `assess`.
        `merge_equal`: equal descriptors are one point of the graph and share what it gets; the
        result's `graph` and `health` are then those of the distinct points, class weights of all.
        """
        check_labels(labels, num_classes, len(descriptors))
        check_descriptors(descriptors)
        if merge_equal and self.graph.merges_duplicates:
            distinct = find_distinct(unit_rows(descriptors.cpu()))
            if distinct.group is not None and len(distinct.points) > 1:
                if initial is not None:
                    initial = initial[distinct.points.to(initial.device)]
                nodes = beliefs.grouped(distinct.group)
                known = nodes.labels(distinct.labels(labels.cpu()))
                found = self(
                    descriptors[distinct.points.to(descriptors.device)], known.to(labels.device),
                    num_classes, initial, nodes, calibrated, unknown,
                )  # fmt: skip
                return self._for_every_point(found, distinct.group, labels, beliefs)
        f = self.apply_transform(descriptors)
        graph = self.assemble_graph(self.find_neighbors(f))
        labels = labels.to(graph.device)
        found = self.spread(graph, labels, num_classes, initial, f, beliefs)
        return self.assess(found, graph, labels, f, beliefs, calibrated, unknown)

    def _for_every_point(
        self, found: PseudoLabels, group: Tensor, labels: Tensor, beliefs: Beliefs
    ) -> PseudoLabels:
        """From nodes to the points [n] of each `group`, which keep labels [n] of their own."""
        group = group.to(found.labels.device)
        labels = labels.to(group.device)

        def of_points(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[group]

        probability = of_points(found.probability)
        assigned = torch.where(labels == UNLABELED, found.labels[group], labels)
        counts = torch.bincount(assigned[assigned >= 0], minlength=len(found.class_weights))
        return replace(
            found,
            labels=assigned,
            class_weights=self.class_weights(counts),
            certainty=beliefs.given_shares(labels, found.certainty[group]),
            reached=found.reached[group],
            probabilities=found.probabilities[group],
            scores=of_points(found.scores),
            probability=None if probability is None else beliefs.given_shares(labels, probability),
            unknown=of_points(found.unknown),
        )

    @full_precision()
    def spread(
        self,
        graph: Graph,
        labels: Tensor,
        num_classes: int,
        initial: Tensor | None = None,
        descriptors: Tensor | None = None,
        beliefs: Beliefs = PLAIN,
    ) -> PseudoLabels:
        """Pseudo-labels on a graph that is already built.

        Args:
            descriptors: F [n, d] that it was built from; a refiner other than `none` needs them.
            beliefs: soft labels, weights and prior scores; a soft label's largest share is in
                `labels`.
        """
        check_labels(labels, num_classes, graph.num_nodes)
        if descriptors is None and not isinstance(self.refiner, NoRefiner):
            raise TypeError("a refiner needs the descriptors that the graph was built from")
        beliefs = beliefs.to(graph.device)
        y = beliefs.label_matrix(labels, num_classes)
        known = known_shares(self.class_shares, labels, num_classes)
        made = replace(self, solver=self.solver.with_shares(known))
        solution = made.solve(made.solver.prepare(graph), y, initial)

        def probabilities(shares: Tensor) -> tuple[Refined, Tensor]:
            p = self.normalize(solution.scores, labels, shares)
            reached = p.any(dim=1)
            if descriptors is None or isinstance(self.refiner, NoRefiner):
                return Refined(p), reached
            return self.refine(descriptors, graph, p, labels, shares, beliefs.given), reached

        shares = equal_shares(num_classes, labels.device) if known is None else known
        found, reached = probabilities(shares)
        if known is None:
            unlabeled = found.probabilities[labels == UNLABELED]
            shares = estimate_shares(lambda: [unlabeled])
            found, reached = probabilities(shares)
        pseudo = self.to_pseudo_labels(found.probabilities, labels, solution, graph, reached)
        pseudo = replace(pseudo, classifier=found.classifier, class_shares=shares)
        return beliefs.certain(pseudo)

    @full_precision()
    def assess(
        self,
        found: PseudoLabels,
        graph: Graph,
        labels: Tensor,
        descriptors: Tensor | None,
        beliefs: Beliefs = PLAIN,
        calibrated: bool = False,
        unknown: bool = False,
    ) -> PseudoLabels:
        """The same with how likely each label is right, or each point of no known class.

        Args:
            calibrated: find `probability`, which takes up to three propagations more.
            unknown: find `unknown`, which takes a solve for one class more.
        """
        c = found.probabilities.shape[1]
        if calibrated:
            how = calibrate(self, graph, descriptors, labels, c, beliefs)
            p = how.probability(found.probabilities, found.labels)
            p = beliefs.given_shares(labels, p)
            found = replace(found, probability=p, calibration=how)
        if unknown:
            assert found.scores is not None
            state = self.solver.prepare(graph)
            background = background_reach(self, state, len(labels), graph.device)
            u = unknown_scores(total_reach(found.scores), background, beliefs.total(labels, c))
            found = replace(found, unknown=u)
        return found

    @full_precision()
    def to_pseudo_labels(
        self,
        probabilities: Tensor,
        labels: Tensor,
        solution: Solution | None = None,
        graph: Graph | None = None,
        reached: Tensor | None = None,
    ) -> PseudoLabels:
        """Labels, certainty and balance for class probabilities [n, c], whoever made them.

        With a network's own predictions this is the paper's 'Network prediction' baseline. Rows
        that do not sum to 1 are divided by their sum, as means over several sources may be of rows
        that one of them knows nothing of; a row of zeros stays.
        """
        mass = probabilities.sum(dim=1, keepdim=True)
        off = (mass > 0) & ((mass - 1).abs() > ROW_SUM)
        if probabilities.device.type != "cpu" or off.any():  # the copy takes memory
            probabilities = torch.where(off, probabilities / mass, probabilities)
        best, certainty = self.best_class(probabilities)
        convergence = None if solution is None else Convergence.of(solution)
        assignment = self.assign(
            best, certainty, labels, probabilities.shape[1], convergence, graph, reached
        )
        scores = None if solution is None else solution.scores
        return PseudoLabels(
            **vars(assignment), probabilities=probabilities, scores=scores, graph=graph
        )


def propagate(
    descriptors: Any,
    labels: Any,
    num_classes: int | None = None,
    *,
    propagator: Propagator | None = None,
    label_weights: Any = None,
    prior: Any = None,
    prior_weight: float = 1.0,
    calibrated: bool = False,
    unknown: bool = False,
    on_unconverged: Literal["warn", "raise", "ignore"] = "warn",
    **parameters: Any,
) -> PseudoLabels:
    """Spread a few labels over a nearest-neighbour graph (Iscen et al., CVPR 2019).

    Args:
        descriptors: [n, d] real numbers (tensor, NumPy array, list), L2-normalised here; a zero
            vector becomes a node without edges. Equal rows are one node and share its label.
        labels: [n] integers or booleans, -1 where unlabelled; or [n, c] shares of the classes (soft
            labels; SciPy's and torch's sparse matrices too), a row of zeros where unlabelled.
        num_classes: c; by default the largest label plus one, or the columns of `labels` or
            `prior`.
        label_weights: [n] at least 0, what each label counts; 0 leaves it out. By default 1.
        prior: [n, c] scores at least 0 from elsewhere, for example a classifier's probabilities
            (dense or sparse); a row of zeros for a point of which they know nothing.
        prior_weight: beta, total of a class's prior scores beside that of its labels: the label
            matrix is Y = Y_labels + beta P over its column sums.
        calibrated: find the `probability` that each label is right, which takes up to three
            propagations more.
        unknown: find how likely each point belongs to no known class.
        propagator: the components; by default the paper's.
        on_unconverged: 'raise' raises if the solver stops short of its tolerance, unless only by
            float32's rounding; 'warn' warns if labels may still change at its residual.
        parameters: as `Propagator.default` takes them (solver, k, gamma, alpha, tolerance, ...).

    Raises:
        FeatureError: NaN, infinity, wrong shape or no points.
        LabelError: a label outside -1..c-1, a wrong number of them, or none given; a share, weight
            or prior score that is negative, NaN or infinite.
        ParameterError: a parameter out of its range, or class shares that no component takes.
        ConvergenceError: as asked by `on_unconverged`.
    """
    if propagator is not None and parameters:
        raise TypeError("parameters belong to the default components; give them or a propagator")
    descriptors = to_descriptors(descriptors)
    num_classes = None if num_classes is None else _whole(num_classes)
    labels, num_classes, beliefs = to_beliefs(
        labels, num_classes, label_weights, prior, prior_weight
    )
    propagator = propagator or Propagator.default(**parameters)
    propagator.check_shares()
    pseudo = propagator(
        descriptors, labels, num_classes, None, beliefs, calibrated, unknown, merge_equal=True
    )
    convergence = pseudo.health.convergence
    if on_unconverged == "raise" and not convergence.settled:
        raise ConvergenceError(f"Short of the solver's tolerance: {convergence.describe()}.")
    if on_unconverged == "warn" and convergence.labels_may_change:
        warnings.warn(f"Propagation: {convergence.describe()}.", ConvergenceWarning, stacklevel=2)
    return pseudo


def build_parts(
    chosen: Mapping[str, Any], parameters: Mapping[str, Any]
) -> tuple[dict[str, Any], set[str]]:
    """Components by key, and which of the parameters some component took.

    Args:
        chosen: for each key a name, or a component, which keeps its own parameters.
        parameters: each goes to every component given by name that declares it.

    Raises:
        ParameterError: a value out of its range.
        RegistryError: no such component.
        TypeError: neither a name nor a component.
    """
    parts: dict[str, Any] = {}
    used: set[str] = set()
    for key, choice in chosen.items():
        kind = registry.of_kind(key)
        if isinstance(choice, kind.base):
            parts[key] = choice
            continue
        if not isinstance(choice, str):
            raise TypeError(f"{key} must be a name or a {kind.base.__name__}; got {choice!r}.")
        component = kind.get(choice)
        # NumPy's numbers become Python's
        own = {
            p.name: getattr(parameters[p.name], "item", lambda value=parameters[p.name]: value)()
            for p in component.parameters
            if p.name in parameters
        }
        try:
            component.model.model_validate(own)
        except ValidationError as error:
            raise ParameterError(f"{key} '{choice}': {_first_problem(error)}.") from None
        used |= own.keys()
        parts[key] = kind.build(choice, **own)
    return parts, used


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    key = ".".join(map(str, problem["loc"]))
    allowed = problem["msg"].removeprefix("Input should be ")
    return f"{key}: found {problem['input']!r}; allowed: {allowed}"


def _whole(num_classes: Any) -> int:
    try:
        return operator.index(num_classes)
    except TypeError:
        raise LabelError(f"num_classes must be a whole number; found {num_classes!r}.") from None
