"""The most typical point of each cluster, with a cluster for every label to come."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from dlp_plugins._threads import row_slices
from dlp_plugins.registry import selectors
from dlp_plugins.selectors.contract import Pool, Selector

ITERATIONS = 10  # of k-means
STARTS = 5  # of k-means; the best is kept. From one start accuracy is up to 8 points lower
TRAINING_POINTS_PER_CLUSTER = 128  # points that k-means is trained on
TYPICAL_NEIGHBORS = 20
# Typicality is a mean over neighbours among so many members of a cluster, evenly spaced: all pairs
# of a large cluster would take long.
MOST_COMPARED = 4096
BLOCK_ENTRIES = 2**22  # similarities held at once


@selectors.register("typiclust")
@dataclass(frozen=True)
class TypiClust(Selector):
    """Spherical k-means, then in each cluster without a label the point nearest to its neighbours.

    Hacohen, Dekel and Weinshall, 2022, on unit rows: as many clusters as there are labels and
    points to choose; the largest of those without a label first; of each the point with the largest
    mean similarity to its 20 nearest neighbours in the cluster. Where every cluster has a label, or
    there are `max_clusters`, clusters with the fewest labels are next, and what counts is that mean
    less the similarity to the nearest point that has or gets a label.
    """

    seed: Annotated[int, Field(ge=0, description="another seed starts k-means elsewhere")] = 0
    max_clusters: Annotated[int, Field(ge=1, description="clusters at most")] = 500

    needs_graph = False

    def select(self, pool: Pool, count: int) -> Tensor:
        f = np.ascontiguousarray(pool.descriptors.cpu().numpy())
        labeled = pool.labels.cpu().numpy() >= 0
        cluster = self._clusters(f, min(int(labeled.sum()) + count, self.max_clusters, len(f)))
        members = [np.flatnonzero(cluster == j) for j in range(int(cluster.max()) + 1)]
        queue = [(int(labeled[m].sum()), -len(m), j) for j, m in enumerate(members) if len(m)]
        heapq.heapify(queue)
        found: dict[int, _Cluster] = {}
        chosen: list[int] = []
        while len(chosen) < count:
            labels, size, j = heapq.heappop(queue)
            if j not in found:
                found[j] = _Cluster.of(f, members[j], labeled)
            point = found[j].take(f)
            if point is not None:
                chosen.append(point)
                heapq.heappush(queue, (labels + 1, size, j))
        return torch.tensor(chosen, device=pool.labels.device)

    def _clusters(self, f: np.ndarray, clusters: int) -> np.ndarray:
        """[n]: the cluster of each point."""
        import faiss  # takes 0.1 s

        kmeans = faiss.Kmeans(
            f.shape[1], clusters, niter=ITERATIONS, nredo=STARTS, spherical=True,
            seed=self.seed + 1, min_points_per_centroid=1,
            max_points_per_centroid=TRAINING_POINTS_PER_CLUSTER,
        )  # fmt: skip
        kmeans.train(f)
        return kmeans.index.search(f, 1)[1][:, 0]


@dataclass
class _Cluster:
    """What is left of one cluster.

    points: [m] those without a label. typicality: [m]. nearest: [m] the largest similarity to a
    labelled point of the cluster; 0 where there is none.
    """

    points: np.ndarray
    typicality: np.ndarray
    nearest: np.ndarray

    @classmethod
    def of(cls, f: np.ndarray, members: np.ndarray, labeled: np.ndarray) -> _Cluster:
        points = members[~labeled[members]]
        known = f[members[labeled[members]]]
        nearest = (f[points] @ known.T).max(axis=1, initial=0)
        return cls(points, typicality(f, points, members), nearest)

    def take(self, f: np.ndarray) -> int | None:
        """The best point, which counts as labelled from now on; None where none is left."""
        if not len(self.points):
            return None
        at = int((self.typicality - self.nearest).argmax())
        point = int(self.points[at])
        left = np.arange(len(self.points)) != at
        self.points, self.typicality = self.points[left], self.typicality[left]
        self.nearest = np.maximum(self.nearest[left], f[self.points] @ f[point])
        return point


def typicality(f: np.ndarray, points: np.ndarray, members: np.ndarray) -> np.ndarray:
    """[b]: mean similarity of points [b] to themselves and their 20 nearest of the members [m].

    Of many members every so many-th is compared.

    Args:
        f: [n, d] unit rows of all points.
    """
    compared = members[:: -(-len(members) // MOST_COMPARED)]
    rows, k = f[compared], min(TYPICAL_NEIGHBORS + 1, len(compared))
    found = np.empty(len(points), np.float32)
    for block in row_slices(len(points), len(compared), BLOCK_ENTRIES):
        nearest = np.partition(f[points[block]] @ rows.T, -k, axis=1)[:, -k:]
        nearest[~np.isin(points[block], compared), 0] = 1  # itself, in the least one's place
        found[block] = nearest.mean(axis=1)
    return found
