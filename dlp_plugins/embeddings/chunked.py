"""Propagation within a memory budget: classes in chunks, rows in blocks, scores on disk if need be.

The same components and the same answer as `propagate.py`, which holds all scores at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dlp_plugins.embeddings.memory import ClassChunks
from dlp_plugins.embeddings.scores import Probabilities, Scores
from dlp_plugins.inputs import check_labels
from dlp_plugins.propagation import (
    UNLABELED,
    Assignment,
    Convergence,
    Propagator,
    equal_shares,
    label_matrix,
)
from dlp_plugins.propagation.propagator import full_precision


@dataclass(frozen=True)
class Outcome(Assignment):
    """What a propagation gives without holding all class probabilities.

    margin: [n] float32, probability of the point's label less that of the best other class; may be
        negative for a labelled point whose neighbours speak for another class.
    counts: [c] points of each class, labelled and pseudo-labelled.
    probabilities: of any rows, all classes.
    edges, components: of the graph.
    zero_vectors: points without a direction, and so without an edge.
    clock: the seconds of each phase.
    """

    margin: Tensor
    counts: Tensor
    probabilities: Probabilities
    edges: int
    components: int
    zero_vectors: int
    clock: Clock

    def certainty_quartiles(self, labels: Tensor) -> list[float]:
        """Of the unlabelled points; empty where there are none."""
        certainty = self.certainty[labels == UNLABELED].numpy()
        return np.quantile(certainty, (0.25, 0.5, 0.75)).tolist() if len(certainty) else []


Progress = Callable[[str, float, float | None], None]
"""phase, how much is done, of how much (None where that is not known)."""


def silent(phase: str, done: float, total: float | None) -> None:
    """Progress for those who want none."""


@full_precision()
def propagate_chunked(
    propagator: Propagator,
    load: Callable[[Callable[[int], None]], Tensor],
    labels: Tensor,
    num_classes: int,
    chunks: ClassChunks,
    *,
    scratch: Path,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> Outcome:
    """Pseudo-labels, classes solved in `chunks`.

    Args:
        load: gives the descriptors [n, d] float32, L2-normalised; is handed a function to tell rows
            read. A function and not a tensor, so that they are freed once the neighbours are known.
        labels: [n] int64, -1 where unlabelled.
        scratch: folder for a temporary file of 4 n c bytes, if scores are to wait on disk.
        progress: called in each phase.

    Raises:
        LabelError, FeatureError, GraphError: as `propagate`.
        SaveError: the scratch file cannot be written.
    """
    points = len(labels)
    check_labels(labels, num_classes, points)
    clock = Clock(progress)
    with clock.phase("read", points) as tick:
        descriptors = load(tick).to(device)
        zero_vectors = len(descriptors) - int(descriptors.any(dim=1).sum())
    with clock.phase("neighbours"):
        neighbors = propagator.find_neighbors(descriptors)
        del descriptors
    with clock.phase("graph"):
        graph = propagator.assemble_graph(neighbors)
        del neighbors
        components = int(graph.components.max()) + 1
    propagator.solver.check_size(graph)

    scores = Scores(scratch if chunks.on_disk else None)
    records: list[Convergence] = []
    with clock.phase("solve", num_classes) as tick:
        state = propagator.solver.prepare(graph)
        for columns in _label_chunks(labels.to(device), num_classes, chunks.width):
            solution = propagator.solve(state, columns)
            scores.append(solution.scores)
            records.append(Convergence.of(solution))
            tick(scores.num_classes)
    with clock.phase("weigh", points) as tick:
        shares = equal_shares(num_classes)
        p = Probabilities.of(scores, propagator.normalizer, labels == UNLABELED, shares)
        best, certainty, margin = _best_classes(propagator, p, labels, tick)
        assignment = propagator.assign(
            best, certainty, labels, num_classes, Convergence.worst(records), graph
        )
    assigned = assignment.labels
    return Outcome(
        **vars(assignment),
        margin=margin,
        counts=torch.bincount(assigned[assigned >= 0], minlength=num_classes),
        probabilities=p,
        edges=graph.num_entries // 2,
        components=components,
        zero_vectors=zero_vectors,
        clock=clock,
    )


def _label_chunks(labels: Tensor, num_classes: int, width: int) -> Iterator[Tensor]:
    """Columns of the label matrix Y, `width` at a time."""
    for start in range(0, num_classes, width):
        stop = min(start + width, num_classes)
        inside = (labels >= start) & (labels < stop)
        yield label_matrix(torch.where(inside, labels - start, UNLABELED), stop - start)


def _best_classes(
    propagator: Propagator,
    probabilities: Probabilities,
    labels: Tensor,
    tick: Callable[[int], None],
) -> tuple[Tensor, Tensor, Tensor]:
    n = len(labels)
    best, certainty, margin = torch.empty(n, dtype=torch.long), torch.empty(n), torch.empty(n)
    for rows in probabilities.blocks():
        p = probabilities.rows(rows)
        best[rows], certainty[rows] = propagator.best_class(p)
        own = labels[rows]
        margin[rows] = _margin(p, torch.where(own >= 0, own, best[rows]))
        tick(rows.stop)
    return best, certainty, margin


def _margin(p: Tensor, labels: Tensor) -> Tensor:
    """[b]: probability of the label less that of the best other class; 0 without a label."""
    at = labels.clamp(min=0)[:, None]
    own = p.gather(1, at).squeeze(1)
    other = p.scatter(1, at, 0.0).amax(dim=1)
    return torch.where(labels >= 0, own - other, 0.0)


class Clock:
    """Reports and times phases."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        self.progress(name, 0, total)
        begin = time.perf_counter()
        yield lambda done: self.progress(name, done, total)
        self.seconds[name] = time.perf_counter() - begin
        self.progress(name, total or 1, total or 1)
