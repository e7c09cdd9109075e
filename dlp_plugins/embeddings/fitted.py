"""A propagation that also labels points that were not part of it.

Shapes: n points, c classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlp_plugins.embeddings.duplicates import Distinct, find_distinct
from dlp_plugins.embeddings.index import Index
from dlp_plugins.embeddings.selection import check_request, chosen_from
from dlp_plugins.inputs import UNLABELED, to_descriptors, to_labels
from dlp_plugins.propagation import Health, Propagator
from dlp_plugins.propagation.beliefs import PLAIN, Beliefs
from dlp_plugins.propagation.calibration import Calibration
from dlp_plugins.propagation.comparison import Comparison, Method, compare, methods
from dlp_plugins.propagation.propagator import full_precision
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
    probability, calibration, unknown: as of `PseudoLabels`, [n]; None where not asked for.
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
    probability: np.ndarray | None
    calibration: Calibration | None
    unknown: np.ndarray | None

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
        beliefs: Beliefs = PLAIN,
        calibrated: bool = False,
        unknown: bool = False,
    ) -> FittedPropagation:
        """Of descriptors x [n, d] and labels [n] int64, -1 where there is none.

        `start`, `auto`, `beliefs`, `calibrated` and `unknown` are as `propagate_chunked` takes
        them.
        """
        rows, given = to_descriptors(x), to_labels(labels)
        distinct = find_distinct(rows)
        if len(distinct.points) < 2:  # a new point needs neighbours
            distinct = Distinct(torch.arange(len(rows)), None)
        rows, known = distinct.select(rows), distinct.labels(given)
        nodes = beliefs.grouped(distinct.group)
        known = nodes.labels(known)
        f, total = propagator.fit_transform(rows)
        neighbors = propagator.find_neighbors(f)
        graph = propagator.assemble_graph(neighbors)
        method, comparison = Method("default", propagator, start), None
        if auto:
            comparison = compare(methods(propagator, start), graph, f, known, num_classes, nodes)
            method = comparison.chosen
        made, nodes = method.propagator, method.beliefs(f, nodes)
        found = made.spread(graph, known, num_classes, descriptors=f, beliefs=nodes)
        found = made.assess(found, graph, known, f, nodes, calibrated, unknown)
        own = given != UNLABELED
        assert found.class_shares is not None  # as labels were spread
        q = found.probabilities
        certainty = beliefs.given_shares(given, distinct.expand(found.certainty))
        probability, score = found.probability, found.unknown
        if probability is not None:
            probability = beliefs.given_shares(given, distinct.expand(probability))
        index = Index.of(method.propagator, total, f, neighbors, q, found, known, found.classifier)
        return cls(
            torch.where(own, given, distinct.expand(found.labels)).numpy(),
            certainty.numpy(),
            distinct.expand(found.reached).numpy(),
            distinct.expand(q.double()).numpy(),
            found.class_shares.double().numpy(),
            found.health,
            index,
            distinct,
            known,
            comparison,
            None if probability is None else probability.numpy(),
            found.calibration,
            None if score is None else distinct.expand(score).numpy(),
        )

    def suggest(self, selector: Selector, count: int) -> np.ndarray:
        """Points to label next, the best first: [count] int64; see `select_points`."""
        check_request(selector, self._distinct, self._known, count)
        f = torch.from_numpy(self.index.points)
        p = torch.from_numpy(self.index.distributions)
        graph = self.index.propagator.assemble_graph(self.index.neighbors)
        found = chosen_from(selector, Pool(f, self._known, graph, p), count)
        return self._distinct.points[found].numpy()
