"""Which points to label next, of descriptors in memory.

Shapes: n points, m of them distinct, d numbers each, c classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dlp_plugins.embeddings.clock import Clock, silent
from dlp_plugins.errors import ComponentError, LabelError
from dlp_plugins.inputs import UNLABELED
from dlp_plugins.propagation import Propagator
from dlp_plugins.propagation.duplicates import Distinct, find_distinct
from dlp_plugins.propagation.propagator import full_precision
from dlp_plugins.selectors.contract import Pool, Selector


@full_precision()
def select_points(
    propagator: Propagator,
    selector: Selector,
    descriptors: Tensor,
    labels: Tensor,
    num_classes: int,
    count: int,
    clock: Clock | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Points to label next, the best first: [count] int64.

    Points with the same descriptor are one: the first of them is chosen, and none if one of them
    has a label.

    Args:
        propagator: transforms the descriptors and builds the graph, if the selector needs it; its
            other parts spread the labels, if the selector needs probabilities.
        descriptors: [n, d], checked.
        labels: [n] int64, -1 where there is none; all may be.

    Raises:
        LabelError: fewer points than `count` are without a label, or the selector needs labels and
            there are none.
    """
    clock = clock or Clock(silent)
    distinct = find_distinct(descriptors, propagator.graph.merges_duplicates)
    known = distinct.labels(labels)
    check_request(selector, distinct, known, count)
    with clock.phase("transform"):
        f = propagator.apply_transform(distinct.select(descriptors).to(device))
    graph = None
    if selector.needs_graph or selector.needs_probabilities:
        with clock.phase("neighbours"):
            neighbors = propagator.find_neighbors(f)
        with clock.phase("graph"):
            graph = propagator.assemble_graph(neighbors)
    p = None
    if selector.needs_probabilities:
        with clock.phase("solve"):
            assert graph is not None
            found = propagator.spread(graph, known.to(f.device), num_classes, descriptors=f)
            p = found.probabilities
    with clock.phase("select"):
        pool = Pool(f, known.to(f.device), graph, p)
        return distinct.points[chosen_from(selector, pool, count)]


def check_request(selector: Selector, distinct: Distinct, known: Tensor, count: int) -> None:
    """Raise LabelError unless so many points can be chosen from the labels [m] of distinct ones."""
    free = int((known == UNLABELED).sum())
    if count > free:
        copies = ", points with the same embedding counted once" if distinct.duplicates else ""
        raise LabelError(f"{count:,} points are asked for, but {free:,} have no label{copies}.")
    if selector.needs_probabilities and free == len(known):
        raise LabelError(
            f"The selector {type(selector).__name__} needs some labels to start from and there are "
            "none. Choose the first points by another, 'coverage' for example."
        )


def chosen_from(selector: Selector, pool: Pool, count: int) -> Tensor:
    """What the selector chose, [count] int64 on the CPU; ComponentError if that cannot be."""
    found = selector.select(pool, count).cpu().long()
    free = pool.labels.cpu() == UNLABELED
    inside = found.shape == (count,) and bool(((found >= 0) & (found < len(free))).all())
    if not inside or not free[found].all() or len(found.unique()) < count:
        raise ComponentError(
            f"{type(selector).__name__}: it must return {count} different points without a label."
        )
    return found
