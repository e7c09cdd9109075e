"""Labels of which a point may have several, within a memory budget, from files to a table.

Shapes: n points, c classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dlp_plugins._threads import row_slices
from dlp_plugins.embeddings import table
from dlp_plugins.embeddings.built import Load, build_graph
from dlp_plugins.embeddings.clock import Clock, Progress, silent
from dlp_plugins.embeddings.index import Index
from dlp_plugins.embeddings.labels import LabelFile
from dlp_plugins.embeddings.memory import ClassChunks
from dlp_plugins.embeddings.scores import BLOCK_ENTRIES, Scores
from dlp_plugins.inputs import check_descriptors, to_descriptors, unit_rows
from dlp_plugins.propagation import Convergence, Propagator
from dlp_plugins.propagation.beliefs import Beliefs, soft_given
from dlp_plugins.propagation.duplicates import Distinct, find_distinct
from dlp_plugins.propagation.multi_label import MultiLabels, choose_labels, spread
from dlp_plugins.propagation.propagator import full_precision

SEPARATOR = "|"  # between the labels of a point in a table


@dataclass(frozen=True)
class MultiOutcome:
    """What a propagation of several labels per point gives.

    labels: [n, c] bool. thresholds: [c], as of `propagate_multi_label`.
    scores: Z of the distinct points; `group` [n] is the row of each point, None where all differ.
    reached: [n] bool. edges, components, zero_vectors, duplicates, note, clock: as of `Outcome`.
    """

    labels: Tensor
    thresholds: Tensor
    scores: Scores
    group: Tensor | None
    reached: Tensor
    convergence: Convergence
    edges: int
    components: int
    zero_vectors: int
    duplicates: int
    note: str | None
    clock: Clock


@full_precision()
def propagate_chunked_multi_label(
    propagator: Propagator,
    load: Load,
    points: int,
    num_classes: int,
    chunks: ClassChunks,
    beliefs: Beliefs,
    *,
    scratch: Path,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> MultiOutcome:
    """As `propagate_multi_label`, classes solved in `chunks`; arguments as `propagate_chunked`.

    Args:
        beliefs: labels with weights in the rows of `distributions`, and prior scores.
    """
    clock = Clock(progress)
    built = build_graph(propagator, load, points, clock, device)
    graph, distinct = built.graph, built.distinct
    components = int(graph.components.max()) + 1
    propagator.solver.check_size(graph)
    nodes = beliefs.grouped_whole(distinct.group).to(device)
    known = nodes.labels(torch.empty(len(distinct.points)))
    assert nodes.given is not None
    assert beliefs.given is not None
    scores = Scores(scratch if chunks.on_disk else None)
    labels, thresholds, records = [], [], []
    reached = torch.zeros(len(known), dtype=torch.bool, device=device)
    with clock.phase("solve", num_classes) as tick:
        state = propagator.solver.prepare(graph)
        for start in range(0, num_classes, chunks.width):
            stop = min(start + chunks.width, num_classes)
            columns = nodes.label_matrix(known.to(device), num_classes, start, stop)
            solution = propagator.solve(state, columns)
            found, least = choose_labels(solution.scores, nodes.given, start)
            reached |= (solution.scores > 0).any(dim=1)
            labels.append(found.cpu())
            thresholds.append(least.cpu())
            scores.append(solution.scores)
            records.append(Convergence.of(solution))
            tick(scores.num_classes)
    assigned = distinct.expand(torch.cat(labels, dim=1))
    assigned[beliefs.given.points] = beliefs.given.distributions > 0
    within = distinct.expand(reached.cpu())
    within[beliefs.given.points] = True
    return MultiOutcome(
        assigned,
        torch.cat(thresholds),
        scores,
        distinct.group,
        within,
        Convergence.worst(records),
        graph.num_entries // 2,
        components,
        built.zero_vectors,
        distinct.duplicates,
        built.note,
        clock,
    )


@full_precision()
def fit_multi_label(
    propagator: Propagator, x: np.ndarray, labels: np.ndarray
) -> tuple[MultiLabels, Index]:
    """As `propagate_multi_label`, equal rows as one point; and new points' scores by the index.

    Args:
        x: [n, d] descriptors.
        labels: [n, c] weights at least 0 of each label, a row of zeros where none is known.

    Raises:
        FeatureError, LabelError: as `propagate_multi_label`.
    """
    rows = to_descriptors(x)
    check_descriptors(rows)
    distinct = find_distinct(unit_rows(rows), propagator.graph.merges_duplicates)
    if len(distinct.points) < 2:  # a new point needs neighbours
        distinct = Distinct(torch.arange(len(rows)), None)
    given = soft_given(labels, normalize=False)
    f, total = propagator.fit_transform(distinct.select(rows))
    neighbors = propagator.find_neighbors(f)
    beliefs = Beliefs(given).grouped_whole(distinct.group)
    found = spread(propagator, propagator.assemble_graph(neighbors), beliefs, labels.shape[1])
    index = Index(
        propagator, total, f.numpy(), neighbors, found.scores.numpy(), found.reached.numpy(), None,
        1.0, list(range(labels.shape[1])),
    )  # fmt: skip
    every = distinct.expand(found.labels)
    every[given.points] = given.distributions > 0
    scores, reached = distinct.expand(found.scores), distinct.expand(found.reached)
    return replace(found, labels=every, scores=scores, reached=reached), index


def write_multi_table(
    path: Path,
    outcome: MultiOutcome,
    given: LabelFile,
    scores: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Write the table completely or not at all.

    Columns: `index`, `id` where points have ids, `label` (a point's classes with '|' between them;
    empty where it has none), `reached`, and with `scores` a column `score_<class>` for each class.

    Raises:
        SaveError: the disk is full or the folder cannot be written; an old file is as it was.
    """

    def names(rows: slice) -> list[str | None]:
        held: list[list[str]] = [[] for _ in range(rows.stop - rows.start)]
        for i, j in outcome.labels[rows].nonzero().tolist():
            held[i].append(str(given.classes[j]))
        return [SEPARATOR.join(own) or None for own in held]

    columns = [
        *table.point_columns(given),
        table.Column("label", "string", names),
        table.Column("reached", "bool_", lambda rows: outcome.reached[rows].numpy()),
    ]
    extra = [f"score_{c}" for c in given.classes] if scores else []
    table.write_blocks(path, columns, extra, _blocks(outcome, scores, progress))


def _blocks(
    outcome: MultiOutcome, scores: bool, progress: Callable[[int], None]
) -> Iterator[tuple[slice, np.ndarray | None]]:
    n, c = outcome.labels.shape
    for rows in row_slices(n, c, BLOCK_ENTRIES):
        at = rows if outcome.group is None else outcome.group[rows]
        yield rows, outcome.scores.rows(at).numpy() if scores else None
        progress(rows.stop)
