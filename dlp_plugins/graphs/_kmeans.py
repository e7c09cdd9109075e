"""k-means cells of points, and an order of the points in which near ones follow each other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dlp_plugins._threads import parallel, slices
from dlp_plugins.graphs._top_k import Array

ITERATIONS = 6  # of k-means; more hardly changes recall
TRAINING_POINTS_PER_CELL = 64  # points that k-means is trained on
# For hierarchical clustering, whose time and memory grow as cells^2, and for k-means and the choice
# among all centroids, whose time per point grows with their number. More cells come in families.
MAX_LINKED_CELLS = 4096
ORDER_CELL_POINTS = 512  # points per cell, on average, where cells serve for the order alone
BLOCK_ROWS = 1024  # points whose nearest centroid is found at once


@dataclass(frozen=True)
class Centroids:
    """Unit centroids of cells, near ones near each other in the list; many come in families.

    values: [cells, d].
    families: [f, d] unit centroids of families of cells; None where there are few cells.
    start: [f + 1]; family i holds the cells start[i] : start[i + 1].
    """

    values: Array
    families: Array | None = None
    start: Array | None = None


def find_centroids(v: Array, cells: int, seed: int) -> Centroids:
    """About so many centroids of spherical k-means of v [n, d]."""
    if cells <= MAX_LINKED_CELLS:
        return Centroids(_linked(_train(v, cells, seed)))
    random = np.random.default_rng(seed)
    most = min(len(v), TRAINING_POINTS_PER_CELL * cells)
    sample = v[np.sort(random.choice(len(v), most, replace=False))]
    families = _linked(_train(sample, math.isqrt(cells), seed))
    family_of = _nearest(sample, families)
    members = np.bincount(family_of, minlength=len(families))
    families, kept = families[members > 0], np.flatnonzero(members)
    counts = np.maximum(1, np.round(cells * members[kept] / most).astype(np.int64))
    by_family = np.split(
        np.argsort(family_of, kind="stable"), np.cumsum(np.bincount(family_of))[:-1]
    )
    parts = [
        _linked(_train(sample[by_family[f]], int(count), seed))
        for f, count in zip(kept, counts, strict=True)
    ]
    return Centroids(np.concatenate(parts), families, np.append(0, np.cumsum([*map(len, parts)])))


def order_by_nearness(v: Array) -> Array:
    """[n] int64: the points of a cell side by side, and near cells near each other."""
    centroids = find_centroids(v, max(1, len(v) // ORDER_CELL_POINTS), seed=0).values
    return np.argsort(_nearest(v, centroids), kind="stable")


def _nearest(v: Array, centroids: Array) -> Array:
    """[n]: the nearest centroid of each row."""
    found = parallel(
        lambda rows: (v[rows] @ centroids.T).argmax(axis=1), slices(len(v), BLOCK_ROWS)
    )
    return np.concatenate(list(found))


def _train(v: Array, cells: int, seed: int) -> Array:
    import faiss  # takes 0.2 s, and most runs have too few points to need it

    cells = min(cells, len(v))
    kmeans = faiss.Kmeans(
        v.shape[1], cells, niter=ITERATIONS, spherical=True, seed=seed + 1,
        max_points_per_centroid=TRAINING_POINTS_PER_CELL, min_points_per_centroid=1,
    )  # fmt: skip
    kmeans.train(v)
    return np.asarray(kmeans.centroids)


def _linked(centroids: Array) -> Array:
    """The centroids in the order of a hierarchical clustering."""
    if len(centroids) < 2:
        return centroids
    from scipy.cluster.hierarchy import leaves_list, linkage

    return centroids[leaves_list(linkage(centroids, "average"))]
