"""k-means cells of points, and an order of the points in which near ones follow each other."""

from __future__ import annotations

import faiss
import numpy as np

from dlp_plugins._threads import chunks, parallel
from dlp_plugins.graphs._top_k import Array

ITERATIONS = 6  # of k-means; more hardly changes recall
TRAIN = 64  # points a cell that k-means sees
LINKED = 4096  # cells that hierarchical clustering can put in order, in time and memory of cells^2
SIZE = 512  # points of a cell, where the cells are for the order alone
ROWS = 1024


def centers(v: Array, cells: int, seed: int) -> Array:
    """Unit centres [cells, d] of spherical k-means, near ones near each other in the list."""
    # here, not above: they take 0.08 s, and most runs have too few points to need them
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial import cKDTree

    kmeans = faiss.Kmeans(
        v.shape[1], cells, niter=ITERATIONS, spherical=True, seed=seed + 1,
        max_points_per_centroid=TRAIN, min_points_per_centroid=1,
    )  # fmt: skip
    kmeans.train(v)
    found = np.asarray(kmeans.centroids)
    if 1 < cells <= LINKED:
        return found[leaves_list(linkage(found, "average"))]
    return found[cKDTree(found, leafsize=1).indices]


def near_order(v: Array) -> Array:
    """[n] int64: the points of a cell side by side, and near cells near each other."""
    middle = centers(v, max(1, len(v) // SIZE), seed=0)
    home = parallel(lambda rows: (v[rows] @ middle.T).argmax(axis=1), chunks(len(v), ROWS))
    return np.argsort(np.concatenate(list(home)), kind="stable")
