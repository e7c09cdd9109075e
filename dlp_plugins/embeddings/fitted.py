"""A propagation that also labels points that were not part of it.

Shapes: n points, m of them distinct, d numbers each, c classes, k neighbours, b new points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import torch
from torch import Tensor

from dlp_plugins._threads import row_slices
from dlp_plugins.embeddings.duplicates import Distinct, find_distinct
from dlp_plugins.embeddings.selection import check_request, chosen_from
from dlp_plugins.graph import Neighbors
from dlp_plugins.inputs import UNLABELED, to_descriptors, to_labels
from dlp_plugins.propagation import Health, Propagator
from dlp_plugins.propagation.comparison import Comparison, Method, compare, methods
from dlp_plugins.propagation.propagator import full_precision
from dlp_plugins.refiners.contract import Classifier
from dlp_plugins.selectors.contract import Pool, Selector

# Gathered neighbours of a block of new points, held at once: 2^24 float64 = 128 MiB.
BLOCK_ENTRIES = 2**24


@dataclass(frozen=True)
class FittedPropagation:
    """What was found for the points of a propagation, and what new points need of it.

    Points with the same descriptor are one point of the graph and share what it gets.

    labels: [n] int64, -1 where there is none. certainty: [n] float32. reached: [n] bool.
    probabilities: [n, c] float64.
    health: of the distinct points.
    comparison: of the default with other methods, where that was asked for.
    """

    labels: np.ndarray
    certainty: np.ndarray
    reached: np.ndarray
    probabilities: np.ndarray
    health: Health
    _propagator: Propagator
    _total: Tensor | None
    _points: np.ndarray
    _neighbors: Neighbors
    _distributions: np.ndarray
    _classifier: Classifier | None
    _distinct: Distinct
    _known: Tensor
    comparison: Comparison | None

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
    ) -> FittedPropagation:
        """Of descriptors x [n, d] and labels [n] int64, -1 where there is none.

        `start` and `auto` are as `propagate_chunked` takes them.
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
        found = method.propagator.spread(
            graph, known, num_classes, descriptors=f, beliefs=method.beliefs(f)
        )
        own = given != UNLABELED
        distributions = found.probabilities.double()
        return cls(
            torch.where(own, given, distinct.expand(found.labels)).numpy(),
            torch.where(own, 1.0, distinct.expand(found.certainty)).numpy(),
            distinct.expand(found.reached).numpy(),
            distinct.expand(distributions).numpy(),
            found.health,
            propagator,
            total,
            f.numpy(),
            neighbors,
            distributions.numpy(),
            found.classifier,
            distinct,
            known,
            comparison,
        )

    @full_precision()
    def predict(self, x: np.ndarray) -> np.ndarray:
        """Class probabilities [b, c] float64 of new points [b, d].

        The mean of their k nearest neighbours' by affinity, and with a refiner what its classifier
        makes of that and of the new points' descriptors. A row is 0 where no neighbour with a
        label is similar at all and there is no refiner.
        """
        f = self._propagator.transform_rows(to_descriptors(x), self._total).numpy()
        indices, similarities = self._nearest(f)
        weights = self._weights(indices, similarities)
        found = np.empty((len(f), self._distributions.shape[1]))
        for rows in row_slices(len(f), indices.shape[1] * found.shape[1], BLOCK_ENTRIES):
            near = self._distributions[indices[rows]]
            mean = np.einsum("mk,mkc->mc", weights[rows], near)
            total = mean.sum(axis=1, keepdims=True)
            mean = np.divide(mean, total, out=np.zeros_like(mean), where=total > 0)
            if self._classifier is not None:
                both = (torch.from_numpy(a) for a in (f[rows].astype(np.float64), mean))
                mean = self._classifier.probabilities(*both).numpy()
            found[rows] = mean
        return found

    def suggest(self, selector: Selector, count: int) -> np.ndarray:
        """Points to label next, the best first: [count] int64; see `select_points`."""
        check_request(selector, self._distinct, self._known, count)
        f, p = torch.from_numpy(self._points), torch.from_numpy(self._distributions).float()
        graph = self._propagator.assemble_graph(self._neighbors)
        found = chosen_from(selector, Pool(f, self._known, graph, p), count)
        return self._distinct.points[found].numpy()

    def _nearest(self, f: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Indices and similarities (float64) [b, k] of the nearest old points."""
        k = self._neighbors.indices.shape[1]
        _, indices = faiss.knn(f, self._points, k, metric=faiss.METRIC_INNER_PRODUCT)
        similarities = np.empty(indices.shape)
        for rows in row_slices(len(f), k * f.shape[1], BLOCK_ENTRIES):
            # Again in float64: FAISS rounds differently with the number of queries in a call.
            near = self._points[indices[rows]].astype(np.float64)
            similarities[rows] = np.einsum("mkd,md->mk", near, f[rows].astype(np.float64))
        return indices, similarities

    def _weights(self, indices: np.ndarray, similarities: np.ndarray) -> np.ndarray:
        """[b, k] affinities of new points to old ones.

        An affinity may look at the neighbour's own neighbours (a local scale): so the new points
        are put after the old points' lists, none of which they change.
        """
        known = self._neighbors
        together = Neighbors(
            torch.cat([known.indices.long(), torch.from_numpy(indices)]),
            torch.cat([known.similarities.double(), torch.from_numpy(similarities)]),
        )
        return self._propagator.affinity.weights(together)[len(self._points) :].numpy()
