"""`dlp propagate --shard-rows`: several processes hold one graph, each some of its rows.

No process holds the descriptors, the neighbour lists, the graph or the scores of all points: each
reads from the mapped file the rows that it needs, and has the lists, the rows of the graph and the
scores of its own share of the points. What each holds of all points are numbers of their own: the
number of its node, its label, certainty and the like.

Nodes are counted in the order of their cells, so that most neighbours are of the same process. An
iteration of the solver sends each process the scores of its neighbours elsewhere, and that alone.

Shapes: n points, m of them distinct; this process has p of these; c classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dlp_plugins.embeddings.chunked import Outcome, best_classes, for_copies, margins
from dlp_plugins.embeddings.clock import Clock, Progress, silent
from dlp_plugins.embeddings.features import EmbeddingFile
from dlp_plugins.embeddings.memory import ClassChunks
from dlp_plugins.embeddings.scores import Probabilities, Scores
from dlp_plugins.embeddings.sharded_graph import GraphRows, assemble_rows
from dlp_plugins.embeddings.sharded_lists import find_cells, find_lists
from dlp_plugins.embeddings.sharded_points import FileRows, read_distinct, transformed
from dlp_plugins.errors import UsageError
from dlp_plugins.graphs.cells import Cells
from dlp_plugins.inputs import UNLABELED, check_labels
from dlp_plugins.normalizers.contract import Blocks, Normalizer
from dlp_plugins.processes.group import Processes
from dlp_plugins.processes.rows import owners
from dlp_plugins.propagation import Convergence, Propagator
from dlp_plugins.propagation.beliefs import PLAIN
from dlp_plugins.propagation.calibration import Calibration, fixed
from dlp_plugins.propagation.class_shares import ESTIMATE, known_shares
from dlp_plugins.propagation.duplicates import Distinct
from dlp_plugins.propagation.propagator import full_precision
from dlp_plugins.propagation.unknown import total_reach, unknown_scores
from dlp_plugins.refiners.none import NoRefiner
from dlp_plugins.solvers.chebyshev import Chebyshev
from dlp_plugins.solvers.contract import Solution
from dlp_plugins.transforms.none import NoTransform

DEFAULTS = {"graph": "cells", "solver": "chebyshev", "refiner": "none"}


def unmet(propagator: Propagator, source: EmbeddingFile) -> list[str]:
    """What to give `dlp propagate` so that the rows can be shared; empty where they can be."""
    normalizer = propagator.normalizer
    needs = {
        "--set graph=cells": isinstance(propagator.graph, Cells),
        "--set solver=chebyshev": isinstance(propagator.solver, Chebyshev),
        "--set refiner=none": isinstance(propagator.refiner, NoRefiner),
        "--set affinity=inner_product": propagator.affinity.rowwise,
        "--set normalizer=class_mass": type(normalizer).fit is Normalizer.fit,
        "class shares other than 'estimate'": propagator.class_shares != ESTIMATE,
        "embeddings in a .npy file": source.mapped is not None,
    }
    return [need for need, met in needs.items() if not met]


@full_precision()
def propagate_sharded(
    propagator: Propagator,
    source: EmbeddingFile,
    labels: Tensor,
    num_classes: int,
    chunks: ClassChunks,
    *,
    scratch: Path,
    progress: Progress = silent,
    calibrated: bool = False,
    unknown: bool = False,
) -> Outcome:
    """As `propagate_chunked`, for plain labels; called by all processes together.

    Args:
        propagator: one for which `unmet` finds nothing; its processes share the rows.
        chunks: the same in all processes.

    Returns:
        The same in all processes; its probabilities are read by all together.

    Raises:
        UsageError: there are more processes than distinct points.
        FeatureError, LabelError: as `propagate`.
    """
    check_labels(labels, num_classes, source.points)
    processes, clock = propagator.processes, Clock(progress)
    with clock.phase("read", source.points) as tick:
        distinct, zero_vectors = read_distinct(source, processes, tick)
        if len(distinct.points) < processes.size:
            raise UsageError(
                f"{source.path} holds {len(distinct.points):,} distinct points, fewer than the "
                f"{processes.size} processes. Start at most one for each."
            )
    graph, distinct, note = _build(propagator, source, distinct, clock)
    known = distinct.labels(labels)
    shares = known_shares(propagator.class_shares, known, num_classes)
    assert shares is not None
    own = known[graph.mine]

    scores = Scores(scratch if chunks.on_disk else None)
    records: list[Convergence] = []
    reach = torch.zeros(len(own)) if unknown else None
    with clock.phase("solve", num_classes) as tick:
        for first in range(0, num_classes, chunks.width):
            last = min(first + chunks.width, num_classes)
            solution = solve_rows(propagator, graph, _label_rows(known, graph.mine, first, last))
            scores.append(solution.scores)
            records.append(Convergence.of(solution))
            if reach is not None:
                reach += total_reach(solution.scores)
            tick(last)
            del solution
        if reach is not None:
            even = torch.full((len(own), 1), 1 / len(known))
            background = solve_rows(propagator, graph, even).scores[:, 0].clamp(min=0)
            reach = unknown_scores(reach, background, PLAIN.total(known, num_classes))

    calibration = _calibration(known, num_classes) if calibrated else None
    with clock.phase("weigh", len(own)) as tick:
        normalizer = _Together(propagator.normalizer, processes)
        p = Probabilities.of(scores, normalizer, own == UNLABELED, shares)
        rows = best_classes(propagator, p, own, calibration, tick)
        best, certainty, margin, probability, reach = (
            None if x is None else processes.gather_shares(x, len(known)) for x in (*rows, reach)
        )
        assert best is not None
        assert certainty is not None
        assert margin is not None
        p = _of_all(p, graph)
        convergence = Convergence.worst(records)
        found = propagator.assign(best, certainty, known, num_classes, convergence, graph)
        group = distinct.group
        assert group is not None
        found = for_copies(propagator, found, labels, known, group, graph)
        margin = margins(p, margin, labels, known, group)
        if probability is not None:
            probability = PLAIN.given_shares(known, probability)[group]
            probability = PLAIN.given_shares(labels, probability)
    return Outcome(
        **vars(found),
        margin=margin,
        probability=probability,
        calibration=calibration,
        unknown=None if reach is None else reach[group],
        counts=torch.bincount(found.labels[found.labels >= 0], minlength=num_classes),
        class_shares=shares,
        probabilities=p.repeated(group),
        edges=graph.num_entries // 2,
        components=int(graph.components.max()) + 1,
        zero_vectors=zero_vectors,
        duplicates=distinct.duplicates,
        note=note,
        clock=clock,
        halo=max(processes.each(graph.halo.wanted)),
    )


def _build(
    propagator: Propagator, source: EmbeddingFile, distinct: Distinct, clock: Clock
) -> tuple[GraphRows, Distinct, str | None]:
    """The graph, its nodes as `Distinct` in the order of their cells, and the transform's note."""
    builder, processes = propagator.graph, propagator.processes
    assert isinstance(builder, Cells)
    assert source.mapped is not None
    change, note = None, None
    if not isinstance(propagator.transform, NoTransform):
        with clock.phase("transform"):
            change, note = transformed(propagator, source, distinct.points)
    with clock.phase("cells"):
        cells = find_cells(
            FileRows(source.mapped, distinct.points.numpy(), change), builder, processes
        )
        distinct = _reordered(distinct, cells.order)
    rows = FileRows(source.mapped, distinct.points.numpy(), change)
    with clock.phase("neighbours", len(rows)) as tick:
        lists = find_lists(rows, cells, builder, processes, tick)
    with clock.phase("graph"):
        weights = propagator.affinities(lists).masked_fill(lists.indices < 0, 0.0)
        indices = lists.indices
        del lists
        graph = assemble_rows(
            indices.numpy(), weights.numpy(), propagator.mutual, processes, len(rows)
        )
    return graph, distinct, note


def _reordered(distinct: Distinct, order: np.ndarray) -> Distinct:
    """Nodes in another order; each point's node is given, also where all points are distinct."""
    node = np.empty(len(order), np.int64)
    node[order] = np.arange(len(order))
    found = torch.from_numpy(node)
    points = distinct.points[torch.from_numpy(order)]
    return Distinct(points, found if distinct.group is None else found[distinct.group])


def _label_rows(known: Tensor, mine: slice, first: int, last: int) -> Tensor:
    """Rows [p] of Y of the classes first..last: indicators over the number of labels of a class."""
    counts = torch.bincount(known[known >= 0], minlength=last)
    labels = known[mine]
    rows = ((labels >= first) & (labels < last)).nonzero().squeeze(1)
    y = torch.zeros(len(labels), last - first)
    y[rows, labels[rows] - first] = 1.0 / counts[labels[rows]]
    return y


def solve_rows(propagator: Propagator, graph: GraphRows, y: Tensor) -> Solution:
    """Rows of the scores, for rows Y [p, w] of each process."""
    solver = propagator.solver
    assert isinstance(solver, Chebyshev)
    z = y.clone()
    iterations = solver.improve_(z, graph, y, graph.norms)
    size = graph.norms(y)
    missing = graph.norms(graph.matmul(z).mul_(solver.alpha).add_(y).sub_(z))
    residual = torch.where(size == 0, 0.0, missing / size)
    return Solution.judged(z, iterations, residual, solver.tolerance, y, graph.norms)


def _calibration(known: Tensor, num_classes: int) -> Calibration:
    per_class = int((known != UNLABELED).sum()) / num_classes
    return fixed(per_class, False, "cross-validation needs the whole graph in one process")


@dataclass(frozen=True)
class _Together(Normalizer):
    """A normalizer whose one pass over all rows is shared among processes."""

    normalizer: Normalizer
    processes: Processes

    def fit(self, blocks: Blocks, shares: Tensor) -> Tensor | None:
        total = self.normalizer.fit(blocks, shares)
        return None if total is None else self.processes.summed(total)

    def apply(self, scores: Tensor, total: Tensor | None, shares: Tensor) -> Tensor:
        return self.normalizer.apply(scores, total, shares)


def _of_all(own: Probabilities, graph: GraphRows) -> Probabilities:
    """Rows [m, c] of which each process has its own [p, c]; read by all processes together."""
    processes, shares = graph.processes, graph.shares

    def rows(at: slice | Tensor) -> Tensor:
        nodes = torch.arange(at.start, at.stop) if isinstance(at, slice) else at
        if not len(nodes):
            return torch.empty(0, own.num_classes)
        owner = owners(shares, nodes)
        mine = nodes[owner == processes.rank] - graph.mine.start
        counts = torch.bincount(owner, minlength=len(shares)).tolist()
        found = processes.gather_rows(own.rows(mine) if len(mine) else None, counts)
        return found[owner.argsort(stable=True).argsort()]

    return replace(own, points=shares[-1].stop, rows=rows)


def take_part(probabilities: Probabilities) -> None:
    """Read all rows by the same blocks as `table.write_table`, which the first process writes."""
    for rows in probabilities.blocks():
        probabilities.rows(rows)
