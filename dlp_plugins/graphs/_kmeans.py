"""k-means cells of points, and an order of the points in which near ones follow each other."""

from __future__ import annotations

import numpy as np

from dlp_plugins._threads import parallel, slices
from dlp_plugins.graphs._top_k import Array

ITERATIONS = 6  # of k-means; more hardly changes recall
TRAINING_POINTS_PER_CELL = 64  # points that k-means is trained on
MAX_LINKED_CELLS = 4096  # for hierarchical clustering, whose time and memory grow as cells^2
ORDER_CELL_POINTS = 512  # points per cell, on average, where cells serve for the order alone
BLOCK_ROWS = 1024  # points whose nearest centroid is found at once


def find_centroids(v: Array, cells: int, seed: int) -> Array:
    """Unit centroids [cells, d] of spherical k-means, near ones near each other in the list."""
    # imported here, as they take 0.2 s and most runs have too few points to need them
    import faiss
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial import cKDTree

    kmeans = faiss.Kmeans(
        v.shape[1], cells, niter=ITERATIONS, spherical=True, seed=seed + 1,
        max_points_per_centroid=TRAINING_POINTS_PER_CELL, min_points_per_centroid=1,
    )  # fmt: skip
    kmeans.train(v)
    centroids = np.asarray(kmeans.centroids)
    if 1 < cells <= MAX_LINKED_CELLS:
        return centroids[leaves_list(linkage(centroids, "average"))]
    return centroids[cKDTree(centroids, leafsize=1).indices]


def order_by_nearness(v: Array) -> Array:
    """[n] int64: the points of a cell side by side, and near cells near each other."""
    centroids = find_centroids(v, max(1, len(v) // ORDER_CELL_POINTS), seed=0)
    cell_of = parallel(
        lambda rows: (v[rows] @ centroids.T).argmax(axis=1), slices(len(v), BLOCK_ROWS)
    )
    return np.argsort(np.concatenate(list(cell_of)), kind="stable")
