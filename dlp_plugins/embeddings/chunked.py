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

from dlp_plugins.embeddings.memory import Chunks
from dlp_plugins.embeddings.scores import Scores, row_blocks
from dlp_plugins.propagation import (
    UNLABELED,
    Health,
    Propagator,
    check_labels,
    label_matrix,
    settle,
    unlabeled_components,
)


@dataclass
class Outcome:
    """Pseudo-labels of n points.

    labels: [n] int64; a labelled point keeps its own, an unreached one has -1.
    certainty: [n] float32 in 0..1; 1 for a labelled point, 0 for an unreached one.
    margin: [n] float32, probability of the point's label less that of the best other class; may be
        negative for a labelled point whose neighbours speak for another class.
    counts: [c] points of each class, labelled and pseudo-labelled.
    scores: gives the class probabilities of any rows.
    edges, components: of the graph.
    zero_vectors: points without a direction, and so without an edge.
    clock: the seconds of each phase.
    """

    labels: Tensor
    certainty: Tensor
    margin: Tensor
    counts: Tensor
    health: Health
    scores: Scores
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


def propagate_chunked(
    propagator: Propagator,
    load: Callable[[Callable[[int], None]], Tensor],
    labels: Tensor,
    num_classes: int,
    chunks: Chunks,
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
        neighbors = propagator.graph.neighbors(descriptors)
        del descriptors
    with clock.phase("graph"):
        graph = propagator.connect(neighbors)
        del neighbors
        components = int(graph.components.max()) + 1
    propagator.solver.check_size(graph)

    scores = Scores(scratch if chunks.on_disk else None)
    residual, iterations, converged = 0.0, 0, True
    with clock.phase("solve", num_classes) as tick:
        state = propagator.solver.prepare(graph)
        for columns in _label_chunks(labels.to(device), num_classes, chunks.width):
            solution = propagator.solver.solve(state, columns)
            scores.append(solution.scores)
            residual = max(residual, float(solution.residual.max()))
            iterations = max(iterations, solution.iterations)
            converged &= solution.converged
            tick(scores.num_classes)
    with clock.phase("weigh", points) as tick:
        assigned, certainty, margin = _weigh(propagator, scores, labels, tick)
    counts = torch.bincount(assigned[assigned >= 0], minlength=num_classes)
    health = Health(
        residual=residual,
        iterations=iterations,
        converged=converged,
        unreached=int((assigned < 0).sum()),
        unlabeled_components=unlabeled_components(graph, labels),
        empty_classes=int((counts == 0).sum()),
    )
    return Outcome(
        assigned, certainty, margin, counts, health, scores,
        graph.num_entries // 2, components, zero_vectors, clock,
    )  # fmt: skip


def _label_chunks(labels: Tensor, num_classes: int, width: int) -> Iterator[Tensor]:
    """Columns of the label matrix Y, `width` at a time."""
    for start in range(0, num_classes, width):
        stop = min(start + width, num_classes)
        inside = (labels >= start) & (labels < stop)
        yield label_matrix(torch.where(inside, labels - start, UNLABELED), stop - start)


def _weigh(
    propagator: Propagator, scores: Scores, labels: Tensor, tick: Callable[[int], None]
) -> tuple[Tensor, Tensor, Tensor]:
    n = len(labels)
    assigned, certainty, margin = torch.empty(n, dtype=torch.long), torch.empty(n), torch.empty(n)
    for start, stop in row_blocks(n, scores.num_classes):
        p = scores.probabilities(start, stop)
        assigned[start:stop], certainty[start:stop] = propagator.judge(p)
        own = labels[start:stop]
        margin[start:stop] = _margin(p, torch.where(own >= 0, own, assigned[start:stop]))
        tick(stop)
    return *settle(assigned, certainty, labels), margin


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
