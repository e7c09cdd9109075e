"""Propagation within a memory budget: classes in chunks, rows in blocks, scores on disk if need be.

The same components and the same answer as `propagation`, which holds all scores at once. Points
with the same embedding are one node of the graph here, and share their label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from dlp_plugins._threads import row_slices
from dlp_plugins.embeddings.built import BuiltGraph, Load, build_graph
from dlp_plugins.embeddings.clock import Clock, Progress, silent
from dlp_plugins.embeddings.index import Index
from dlp_plugins.embeddings.memory import ClassChunks
from dlp_plugins.embeddings.prototypes import images_only, node_beliefs, node_labels
from dlp_plugins.embeddings.robust import trusted_beliefs
from dlp_plugins.embeddings.scores import Probabilities, Scores
from dlp_plugins.graph import Graph
from dlp_plugins.inputs import BLOCK_ENTRIES, check_labels
from dlp_plugins.propagation import (
    UNLABELED,
    Assignment,
    Convergence,
    Health,
    Propagator,
    equal_shares,
)
from dlp_plugins.propagation.beliefs import PLAIN, Beliefs
from dlp_plugins.propagation.calibration import Calibration, calibrate, fixed
from dlp_plugins.propagation.class_shares import estimate_shares, known_shares
from dlp_plugins.propagation.comparison import Comparison, Method, compare, methods, runs
from dlp_plugins.propagation.propagator import full_precision
from dlp_plugins.propagation.unknown import background_reach, total_reach, unknown_scores
from dlp_plugins.refiners.contract import Classifier, Empty
from dlp_plugins.refiners.none import NoRefiner
from dlp_plugins.solvers.contract import Operator, Solution


@dataclass(frozen=True)
class Outcome(Assignment):
    """What a propagation gives without holding all class probabilities.

    margin: [n] float32, probability of the point's label less that of the best other class; may be
        negative for a labelled point whose neighbours have another class.
    probability: [n] float32, that the label is right, calibrated; None where not asked for.
    calibration: how that was found.
    unknown: [n] float32 in 0..1, larger for a point of no known class; None where not asked for.
    counts: [c] points of each class, labelled and pseudo-labelled.
    class_shares: pi [c] float32, wanted or estimated shares of the unlabelled points.
    probabilities: of any rows, all classes.
    edges, components: of the graph.
    zero_vectors: points without a direction, and so without an edge.
    duplicates: points with the embedding of an earlier one.
    note: what the transform did, if worth a sentence.
    index: labels new points, if asked for; its classes are 0..c-1.
    clock: the seconds of each phase.
    comparison: of the default with other methods, where that was asked for.
    halo: where processes share the rows of the graph, the nodes of other processes that a process's
        own ones are linked to, the most that any has; else None.
    """

    margin: Tensor
    probability: Tensor | None
    calibration: Calibration | None
    unknown: Tensor | None
    counts: Tensor
    class_shares: Tensor
    probabilities: Probabilities
    edges: int
    components: int
    zero_vectors: int
    duplicates: int
    note: str | None
    clock: Clock
    comparison: Comparison | None = None
    index: Index | None = None
    halo: int | None = None

    def certainty_quartiles(self, labels: Tensor) -> list[float]:
        """Of the unlabelled points; empty where there are none."""
        certainty = self.certainty[labels == UNLABELED].numpy()
        return np.quantile(certainty, (0.25, 0.5, 0.75)).tolist() if len(certainty) else []

    def crowded_classes(self, labels: Tensor) -> dict[int, float]:
        """Classes that take several times their share of the unlabelled points, and how many.

        Args:
            labels: [n] int64, -1 where unlabelled.
        """
        assigned = self.labels[labels == UNLABELED]
        counts = torch.bincount(assigned[assigned >= 0], minlength=len(self.counts))
        times = counts / (max(1, len(assigned)) * self.class_shares)
        crowded = (times >= CROWDED) & (self.class_shares > 0)
        return {int(j): float(times[j]) for j in crowded.nonzero()}


CROWDED = 3.0  # times its share at which a class is reported


class Store(Protocol):
    """Builds the graph through files and keeps there what was solved (`stored.py`)."""

    def build(self, propagator: Propagator, load: Load, clock: Clock) -> BuiltGraph: ...

    def solve(self, first: int, last: int, solve: Callable[[], Solution]) -> Solution:
        """The classes first..last, solved now or before."""
        ...

    def empty(self, shape: Sequence[int], /, *, device: torch.device) -> Tensor:
        """An array for a refiner (`Empty`)."""
        ...


@full_precision()
def propagate_chunked(
    propagator: Propagator,
    load: Load,
    labels: Tensor,
    num_classes: int,
    chunks: ClassChunks,
    *,
    scratch: Path,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
    beliefs: Beliefs = PLAIN,
    start: Any = None,
    auto: bool = False,
    keep_index: bool = False,
    prototypes: Tensor | None = None,
    robust: bool = False,
    calibrated: bool = False,
    unknown: bool = False,
    store: Store | None = None,
) -> Outcome:
    """Pseudo-labels, classes solved in `chunks`.

    Args:
        load: returns the descriptors [n, d] float32, L2-normalised; gets a function to report the
            rows read. A function and not a tensor, so that they are freed once the neighbours are
            known, unless a refiner needs them. May be overwritten.
        labels: [n] int64, -1 where unlabelled.
        scratch: folder for a temporary file of 4 n c bytes, if scores are kept on disk.
        progress: called in each phase.
        beliefs: soft labels, weights and prior scores of the n points.
        start: classifier to start from; see `Start`. Its labels are plain.
        auto: compare the default with other methods and take one that is clearly better.
        robust: labels that the rest contradicts count less.
        keep_index: keep what new points need; descriptors and all probabilities stay in memory.
        prototypes: [c, d] unit rows, one per class, as further nodes that have their class as
            label; the propagator is one of `prototypes.with_prototypes`, without transform.
        calibrated: find the probability that each label is right; not with prototypes.
        unknown: find how likely each point belongs to no known class.
        store: keeps the graph and the scores in files. Neither with prototypes nor with an index,
            `start` or `auto`.

    Raises:
        LabelError, FeatureError, GraphError: as `propagate`.
        SaveError: a file cannot be written.
    """
    points = len(labels)
    if prototypes is None:
        check_labels(labels, num_classes, points)
    clock = Clock(progress)
    refines = not isinstance(propagator.refiner, NoRefiner)
    if store is None:
        keep = refines or keep_index or auto or start is not None
        built = build_graph(
            propagator, load, points, clock, device,
            prototypes=prototypes, keep=keep, keep_lists=keep_index,
        )  # fmt: skip
    else:
        built = store.build(propagator, load, clock)
    graph, f, distinct, lists = built.graph, built.f, built.distinct, built.lists
    components = int(graph.components.max()) + 1
    nodes = beliefs.grouped(distinct.group).to(device)
    known = nodes.labels(distinct.labels(labels))
    if prototypes is not None:
        known = node_labels(known, num_classes)
        nodes = node_beliefs(nodes, points, num_classes)
    if robust:
        with clock.phase("audit"):
            alpha = propagator.alpha
            beliefs = trusted_beliefs(graph, labels, num_classes, distinct, beliefs, alpha)
            nodes = beliefs.grouped(distinct.group).to(device)
            known = nodes.labels(distinct.labels(labels))
    shares = known_shares(propagator.class_shares, known, num_classes)
    propagator = replace(propagator, solver=propagator.solver.with_shares(shares))
    propagator.solver.check_size(graph)

    comparison = None
    if f is not None:
        method = Method("default", propagator, start)
        if auto:
            with clock.phase("compare", runs(known, num_classes)) as tick:
                every = methods(propagator, start)
                plain = known.to(device)
                comparison = compare(every, graph, f, plain, num_classes, nodes, tick)
            method = comparison.chosen
        propagator, nodes = method.propagator, method.beliefs(f, nodes)
        refines = not isinstance(propagator.refiner, NoRefiner)
        f = f if refines or keep_index else None

    scores = Scores(scratch if chunks.on_disk and store is None else None)
    records: list[Convergence] = []
    reach = torch.zeros(len(known), device=device) if unknown else None
    with clock.phase("solve", num_classes) as tick:
        state = propagator.solver.prepare(graph)
        for first in range(0, num_classes, chunks.width):
            last = min(first + chunks.width, num_classes)

            def solve(first: int = first, last: int = last, state: Any = state) -> Solution:
                y = nodes.label_matrix(known.to(device), num_classes, first, last)
                return propagator.solve(state, y)

            solution = solve() if store is None else store.solve(first, last, solve)
            scores.append(solution.scores)
            records.append(Convergence.of(solution))
            if reach is not None:
                reach += total_reach(solution.scores)
            tick(scores.num_classes)
        if reach is not None:
            background = background_reach(propagator, state, len(reach), graph.device)
            sources = nodes.total(known, num_classes)
            reach = unknown_scores(reach, background, sources).cpu()[: len(distinct.points)]
        del state, solution, solve
    index = None
    empty = None if store is None else store.empty
    steps = _LastSteps(propagator, scores, graph, f if refines else None, known, nodes, empty)
    with clock.phase("refine") if refines else nullcontext():
        if shares is None:
            equal, *_ = steps.probabilities(equal_shares(num_classes), last=False)
            shares = estimate_shares(lambda: _unlabeled_rows(equal, known))
            del equal
        p, reached, classifier = steps.probabilities(shares)
    calibration = None
    if calibrated and prototypes is None:
        with clock.phase("calibrate"):
            kept = f if refines else None
            order = None if store is None else distinct.points.argsort()
            calibration = _calibrate(
                chunks, propagator, graph, kept, known, num_classes, nodes, order
            )
    with clock.phase("weigh", points) as tick:
        best, certainty, margin, probability = best_classes(propagator, p, known, calibration, tick)
        assignment = propagator.assign(
            best, certainty, known, num_classes, Convergence.worst(records), graph, reached
        )
        assignment = nodes.certain(assignment)
        if prototypes is not None:
            assignment, margin = images_only(assignment, points), margin[:points]
            p = replace(p, points=points)
        if f is not None and lists is not None:
            q = p.all()
            index = Index.of(propagator, built.total, f, lists, q, assignment, known, classifier)
        if distinct.group is not None:
            assignment = for_copies(propagator, assignment, labels, known, distinct.group, graph)
            assignment = beliefs.certain(assignment)
            margin = margins(p, margin, labels, known, distinct.group)
            p = p.repeated(distinct.group)
        if probability is not None:
            probability = distinct.expand(nodes.given_shares(known, probability))
            probability = beliefs.given_shares(labels, probability)
    assigned = assignment.labels
    return Outcome(
        **vars(assignment),
        margin=margin,
        probability=probability,
        calibration=calibration,
        unknown=None if reach is None else distinct.expand(reach),
        counts=torch.bincount(assigned[assigned >= 0], minlength=num_classes),
        class_shares=shares,
        probabilities=p,
        edges=graph.num_entries // 2,
        components=components,
        zero_vectors=built.zero_vectors,
        duplicates=distinct.duplicates,
        note=built.note,
        clock=clock,
        comparison=comparison,
        index=index,
    )


@dataclass(frozen=True)
class _LastSteps:
    """From scores to probabilities, for any shares of the classes.

    f: descriptors [n, d], which a refiner needs; None without one.
    labels: [n] int64, -1 where there is none.
    nodes: soft labels and weights of the points.
    empty: makes arrays [n, c], where they may lie in files.
    """

    propagator: Propagator
    scores: Scores
    graph: Graph
    f: Tensor | None
    labels: Tensor
    nodes: Beliefs
    empty: Empty | None = None

    def probabilities(
        self, shares: Tensor, last: bool = True
    ) -> tuple[Probabilities, Tensor | None, Classifier | None]:
        """For pi [c]; with a refiner also which points [n] some label reached, and its classifier.

        last: the scores are not needed again, and give their memory back before a refiner runs.
        """
        made = self.propagator
        p = Probabilities.of(self.scores, made.normalizer, self.labels == UNLABELED, shares)
        if self.f is None:
            return p, None, None
        held, device = p.all(self.empty), self.f.device
        if last:
            p.close()
        reached = held.any(dim=1)
        found = made.refine(
            self.f,
            self.graph,
            held.to(device),
            self.labels.to(device),
            shares.to(device),
            self.nodes.given,
            self.empty,
        )
        return Probabilities.held(found.probabilities.cpu()), reached, found.classifier


def _unlabeled_rows(p: Probabilities, labels: Tensor) -> Iterator[Tensor]:
    """Probabilities [b, c] of the unlabelled points, a block at a time."""
    for rows in p.blocks():
        yield p.rows(rows)[labels[rows] == UNLABELED]


def _calibrate(
    chunks: ClassChunks,
    propagator: Propagator,
    graph: Graph,
    f: Tensor | None,
    known: Tensor,
    num_classes: int,
    nodes: Beliefs,
    order: Tensor | None,
) -> Calibration:
    """As `calibrate`, which holds all classes; the fixed temperature where they do not fit."""
    if chunks.on_disk or chunks.width < num_classes:
        per_class = int((known != UNLABELED).sum()) / num_classes
        return fixed(per_class, f is not None, "memory holds too few classes for cross-validation")
    return calibrate(propagator, graph, f, known, num_classes, nodes, order)


def for_copies(
    propagator: Propagator,
    found: Assignment,
    labels: Tensor,
    known: Tensor,
    group: Tensor,
    graph: Operator,
) -> Assignment:
    """What was found for m distinct points, for all n: copies share it, but keep a given label."""
    own = labels != UNLABELED
    assigned = torch.where(own, labels, found.labels[group])
    certainty = torch.where(own, 1.0, found.certainty[group])
    reached = found.reached[group]
    counts = torch.bincount(assigned[assigned >= 0], minlength=len(found.class_weights))
    health = Health.of(
        reached,
        counts,
        known[group],
        found.health.convergence,
        lambda: graph.components[group],
        propagator.solver.approximate,
    )
    weights = propagator.class_weights(counts)
    return Assignment(assigned, certainty, reached, weights, health)


def margins(
    p: Probabilities, margin: Tensor, labels: Tensor, known: Tensor, group: Tensor
) -> Tensor:
    """[n] of margins [m]; copies that are given another label than the rest have their own."""
    margin = margin[group]
    other = ((labels != UNLABELED) & (labels != known[group])).nonzero().squeeze(1)
    for part in row_slices(len(other), p.num_classes, BLOCK_ENTRIES):
        points = other[part]
        margin[points] = _margin(p.rows(group[points]), labels[points])
    return margin


def best_classes(
    propagator: Propagator,
    probabilities: Probabilities,
    labels: Tensor,
    calibration: Calibration | None,
    tick: Callable[[int], None],
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Best class [n], certainty; margin and, with a calibration, probability of each row's label.

    The label is the given one of a labelled row, else the best class.
    """
    n = len(labels)
    probability = None if calibration is None else torch.empty(n)
    best, certainty, margin = torch.empty(n, dtype=torch.long), torch.empty(n), torch.empty(n)
    for rows in probabilities.blocks():
        p = probabilities.rows(rows)
        best[rows], certainty[rows] = propagator.best_class(p)
        own = torch.where(labels[rows] >= 0, labels[rows], best[rows])
        margin[rows] = _margin(p, own)
        if calibration is not None and probability is not None:
            probability[rows] = calibration.probability(p, own)
        tick(rows.stop)
    return best, certainty, margin, probability


def _margin(p: Tensor, labels: Tensor) -> Tensor:
    """[b]: probability of the label less that of the best other class; 0 without a label."""
    at = labels.clamp(min=0)[:, None]
    own = p.gather(1, at).squeeze(1)
    other = p.scatter(1, at, 0.0).amax(dim=1)
    return torch.where(labels >= 0, own - other, 0.0)
