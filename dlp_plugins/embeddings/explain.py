"""Why a point of a file has its label: what `dlp explain` shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from dlp_plugins.embeddings.built import Built, build_from_file
from dlp_plugins.embeddings.clock import Clock, Progress, silent
from dlp_plugins.embeddings.ids import Ids
from dlp_plugins.embeddings.labels import LabelFile
from dlp_plugins.embeddings.options import Options
from dlp_plugins.embeddings.run import prepare
from dlp_plugins.errors import LabelError
from dlp_plugins.inputs import UNLABELED
from dlp_plugins.propagation import Propagator
from dlp_plugins.propagation.beliefs import PLAIN, Beliefs
from dlp_plugins.propagation.explanation import Shares, center_distances, paths_to, shares_of
from dlp_plugins.propagation.propagator import full_precision
from dlp_plugins.propagation.unknown import check_system
from dlp_plugins.refiners.none import NoRefiner

PATHS = 3  # labelled points to which a path is shown
CENTERS = 3


@dataclass(frozen=True)
class Explanation:
    """Why a point has its label. Points are rows of the file; classes are numbered.

    point: the row.
    given: its own label; -1 where it has none.
    known: the same, or the label of points with the same embedding; -1 where none has one.
    graph_label: the class that the graph gives it; -1 where no label reaches it.
    graph_probabilities: [c] of the graph, after the normalizer.
    shares: of the labelled points (rows of the file) in the graph's class.
    paths: rows of the file, from each of the first three labelled points to the point; empty where
        it is that point itself.
    refined_label: the class after the refiner; None without one.
    refined_probabilities: [c]; None without a refiner.
    centers: the classes whose centres are nearest to the embedding, with their distances, the
        nearest first: means of transformed embeddings weighted by the refined probabilities.
    """

    point: int
    given: int
    known: int
    graph_label: int
    graph_probabilities: np.ndarray
    shares: Shares
    paths: list[list[int]]
    refined_label: int | None
    refined_probabilities: np.ndarray | None
    centers: list[tuple[int, float]]

    @property
    def label(self) -> int:
        """What `dlp propagate` writes for the point."""
        if self.known != UNLABELED:
            return self.known
        return self.graph_label if self.refined_label is None else self.refined_label


@full_precision()
def explain_point(
    propagator: Propagator,
    built: Built,
    labels: Tensor,
    num_classes: int,
    point: int,
    beliefs: Beliefs = PLAIN,
) -> Explanation:
    """Why a point has its label, from the graph that is already built.

    Args:
        labels: [n] int64 of the points, -1 where there is none.
        beliefs: soft labels, weights and prior scores of the points.

    Raises:
        LabelError: there is no such point.
        UsageError: the solver is of another system (as Poisson learning is).
    """
    check_system(propagator, "Shares of labelled points need")
    if not 0 <= point < len(labels):
        raise LabelError(f"There is no point {point}; points are 0..{len(labels) - 1}.")
    node, graph = built.node(point), built.graph
    nodes = beliefs.grouped(built.distinct.group).to(graph.device)
    known = nodes.labels(built.distinct.labels(labels)).to(graph.device)
    found = propagator.spread(graph, known, num_classes, descriptors=built.f, beliefs=nodes)
    assert found.scores is not None
    assert found.class_shares is not None
    p = propagator.normalize(found.scores, known, found.class_shares)[node]
    graph_label = int(p.argmax()) if bool(p.any()) else UNLABELED
    alpha = propagator.alpha
    shares, paths = Shares(0.0, np.empty(0, np.int64), np.empty(0)), []
    if graph_label != UNLABELED:
        y = nodes.label_matrix(known, num_classes, graph_label, graph_label + 1)[:, 0]
        shares = shares_of(graph, y, node, alpha)
        paths = paths_to(graph, node, shares.nodes[:PATHS].tolist(), alpha)
    rows = np.array([_row(built, labels, int(i), graph_label) for i in shares.nodes], np.int64)
    refines = not isinstance(propagator.refiner, NoRefiner)
    q, centers = found.probabilities, []
    if refines:
        distances = center_distances(built.f, q, node)
        nearest = np.argsort(distances, kind="stable")[:CENTERS]
        centers = [(int(j), float(distances[j])) for j in nearest if np.isfinite(distances[j])]
    return Explanation(
        point,
        int(labels[point]),
        int(labels[point]) if labels[point] != UNLABELED else int(known[node]),
        graph_label,
        p.cpu().numpy(),
        Shares(shares.score, rows, shares.shares),
        [[built.point(i) for i in path] if len(path) > 1 else [] for path in paths],
        int(q[node].argmax()) if refines else None,
        q[node].cpu().numpy() if refines else None,
        centers,
    )


def _row(built: Built, labels: Tensor, node: int, label: int) -> int:
    """The first point of a node that has its label, or just the first (it may be a soft one)."""
    if built.distinct.group is None:
        return built.point(node)
    same = built.distinct.group == node
    own = (same & (labels == label)).nonzero()
    return int(own[0]) if len(own) else built.point(node)


def explain_file(
    embeddings: Path | str,
    labels: Path | str,
    point: int | str,
    *,
    progress: Progress = silent,
    **options: Any,
) -> tuple[Explanation, LabelFile]:
    """Why a point of a file has its label; also what classes and points are called.

    Args:
        point: its id where the points have ids and this is one, else its row from 0.
        options: as `Options` takes them.

    Raises:
        As `run.prepare`; LabelError: there is no such point.
    """
    job = prepare(Options(embeddings, labels, None, **options))
    row = _to_row(point, job.given.ids, job.source.points)
    built, _ = build_from_file(job, progress)
    with Clock(progress).phase("solve"):
        classes = len(job.given.classes)
        found = explain_point(job.propagator, built, job.given.labels, classes, row, job.beliefs)
    return found, job.given


def _to_row(point: int | str, ids: Ids | None, points: int) -> int:
    if ids is not None and str(point) in ids.rows:
        return ids.rows[str(point)]
    if str(point).isdecimal() and int(point) < points:
        return int(point)
    also = " and no point has this id" if ids is not None else ""
    raise LabelError(f"There is no point '{point}': rows are 0..{points - 1}{also}.")
