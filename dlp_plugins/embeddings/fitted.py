"""A propagation that also labels points that were not part of it.

Shapes: n points, c classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlp_plugins.embeddings.audit import Audit, audit_labels
from dlp_plugins.embeddings.duplicates import Distinct, find_distinct
from dlp_plugins.embeddings.index import Index
from dlp_plugins.embeddings.robust import trusted_beliefs
from dlp_plugins.embeddings.selection import check_request, chosen_from
from dlp_plugins.inputs import UNLABELED, to_descriptors, to_labels
from dlp_plugins.propagation import Health, Propagator
from dlp_plugins.propagation.comparison import Comparison, Method, compare, methods
from dlp_plugins.propagation.propagator import full_precision
from dlp_plugins.registry import EMBEDDINGS_ALPHA
from dlp_plugins.selectors.contract import Pool, Selector


@dataclass(frozen=True)
class FittedPropagation:
    """What was found for the points of a propagation, and what new points need of it.

    Points with the same descriptor are one point of the graph and share what it gets.

    labels: [n] int64, -1 where there is none. certainty: [n] float32. reached: [n] bool.
    probabilities: [n, c] float64. class_shares: [c] float64.
    health: of the distinct points.
    comparison: of the default with other methods, where that was asked for.
    index: labels new points.
    """

    labels: np.ndarray
    certainty: np.ndarray
    reached: np.ndarray
    probabilities: np.ndarray
    class_shares: np.ndarray
    health: Health
    index: Index
    _distinct: Distinct
    _known: Tensor
    comparison: Comparison | None
    _given: Tensor

    @classmethod
    @full_precision()
    def of(
        cls,
        propagator: Propagator,
        x: np.ndarray,
        labels: np.ndarray,
        num_classes: int,
        start: Any = None,
        auto: bool = False,
        robust: bool = False,
    ) -> FittedPropagation:
        """Of descriptors x [n, d] and labels [n] int64, -1 where there is none.

        `start`, `auto` and `robust` are as `propagate_chunked` takes them; the last goes with
        neither of the others.
        """
        rows, given = to_descriptors(x), to_labels(labels)
        distinct = find_distinct(rows)
        if len(distinct.points) < 2:  # a new point needs neighbours
            distinct = Distinct(torch.arange(len(rows)), None)
        rows, known = distinct.select(rows), distinct.labels(given)
        f, total = propagator.fit_transform(rows)
        neighbors = propagator.find_neighbors(f)
        graph = propagator.assemble_graph(neighbors)
        method, comparison = Method("default", propagator, start), None
        if auto:
            comparison = compare(methods(propagator, start), graph, f, known, num_classes)
            method = comparison.chosen
        nodes = method.beliefs(f)
        if robust:
            alpha = getattr(propagator.solver, "alpha", EMBEDDINGS_ALPHA)
            trusted = trusted_beliefs(graph, given, num_classes, distinct, alpha=alpha)
            nodes = trusted.grouped(distinct.group)
            known = nodes.labels(known)
        found = method.propagator.spread(graph, known, num_classes, descriptors=f, beliefs=nodes)
        own = given != UNLABELED
        assert found.class_shares is not None  # as labels were spread
        q = found.probabilities
        index = Index.of(method.propagator, total, f, neighbors, q, found, known, found.classifier)
        return cls(
            torch.where(own, given, distinct.expand(found.labels)).numpy(),
            torch.where(own, 1.0, distinct.expand(found.certainty)).numpy(),
            distinct.expand(found.reached).numpy(),
            distinct.expand(q.double()).numpy(),
            found.class_shares.double().numpy(),
            found.health,
            index,
            distinct,
            known,
            comparison,
            given,
        )

    def audit(self) -> Audit:
        """Doubts about the given labels; see `audit_labels`."""
        f = torch.from_numpy(self.index.points)
        graph = self.index.propagator.assemble_graph(self.index.neighbors)
        classes = self.probabilities.shape[1]
        return audit_labels(self.index.propagator, f, graph, self._given, classes, self._distinct)

    def suggest(self, selector: Selector, count: int) -> np.ndarray:
        """Points to label next, the best first: [count] int64; see `select_points`."""
        check_request(selector, self._distinct, self._known, count)
        f = torch.from_numpy(self.index.points)
        p = torch.from_numpy(self.index.distributions)
        graph = self.index.propagator.assemble_graph(self.index.neighbors)
        found = chosen_from(selector, Pool(f, self._known, graph, p), count)
        return self._distinct.points[found].numpy()
