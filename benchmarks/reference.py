"""The usual propagation step, to compare ours with, and the data to compare on.

The authors' procedure (Iscen et al., CVPR 2019): FAISS flat search, SciPy graph, and SciPy's
conjugate gradient class by class in float64. Functions only; the other benchmarks call them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import scipy.sparse as sp

Array = np.ndarray[Any, np.dtype[Any]]


def mixture(
    n: int, classes: int, dim: int = 128, intrinsic: int = 16, spread: float = 0.8, seed: int = 0
) -> tuple[Array, Array]:
    """Points of overlapping classes on the unit sphere, shaped like a network's descriptors.

    Learned descriptors lie near few dimensions. So, in a random subspace of `intrinsic` of them, a
    class is a mean of length about 1 plus a Gaussian of length about `spread`; a Gaussian of length
    0.3 in all dimensions is added and each point is normalised. With `intrinsic=dim, spread=2` a
    class has no structure inside, the worst case for an approximate search.

    Returns:
        descriptors [n, dim] float32 and classes [n] int64.
    """
    random = np.random.default_rng(seed)
    return _points(random, n, spread, *_classes(random, classes, dim, intrinsic))


def mixture_in_blocks(
    n: int, classes: int, dim: int, block: int = 1_000_000, seed: int = 0
) -> Iterator[tuple[Array, Array]]:
    """The same kind of set, other points, where all of it does not fit: descriptors and classes."""
    random = np.random.default_rng(seed)
    kinds = _classes(random, classes, dim, 16)
    for start in range(0, n, block):
        yield _points(random, min(block, n - start), 0.8, *kinds)


def _classes(random: Any, classes: int, dim: int, intrinsic: int) -> tuple[Array, Array]:
    """Axes of the subspace and means in it."""
    basis = np.linalg.qr(random.standard_normal((dim, intrinsic)))[0].T.astype(np.float32)
    return basis, random.standard_normal((classes, intrinsic), dtype=np.float32) / intrinsic**0.5


def _points(random: Any, n: int, spread: float, basis: Array, means: Array) -> tuple[Array, Array]:
    intrinsic, dim = basis.shape
    labels = random.integers(0, len(means), n)
    v = 0.3 / dim**0.5 * random.standard_normal((n, dim), dtype=np.float32)
    for rows in np.array_split(np.arange(n), max(1, n // 100_000)):
        within = random.standard_normal((len(rows), intrinsic), dtype=np.float32)
        v[rows] += (means[labels[rows]] + spread / intrinsic**0.5 * within) @ basis
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    return v, labels


def some_labels(truth: Array, per_class: int, seed: int = 0) -> Array:
    """[n] int64: the class of `per_class` random points of each class, -1 for the others."""
    random = np.random.default_rng(seed)
    given = np.full(len(truth), -1, np.int64)
    for c in np.unique(truth):
        given[random.choice(np.flatnonzero(truth == c), per_class, replace=False)] = c
    return given


def search(v: Array, k: int) -> tuple[Array, Array]:
    """FAISS flat: indices and similarities [n, k + 1], usually with the point itself among them."""
    index = faiss.IndexFlatIP(v.shape[1])
    index.add(v)
    similarities, indices = index.search(v, k + 1)
    return indices, similarities


def build_graph(indices: Array, similarities: Array, gamma: float = 3.0) -> sp.csr_matrix:
    """Wn [n, n] float64: affinities, symmetry, normalisation."""
    n, width = indices.shape
    rows = np.repeat(np.arange(n), width)
    weights = np.maximum(similarities, 0).astype(np.float64).reshape(-1) ** gamma
    w = sp.csr_matrix((weights, (rows, indices.reshape(-1))), shape=(n, n))
    w = w + w.T
    w.setdiag(0)
    degree = np.asarray(w.sum(axis=1)).reshape(-1)
    scale = sp.diags(1 / np.sqrt(np.where(degree > 0, degree, 1)))
    return (scale @ w @ scale).tocsr()


def solve(wn: sp.csr_matrix, labels: Array, classes: int, alpha: float = 0.99) -> Array:
    """Z [n, classes]: (I - alpha Wn) z = y by conjugate gradient, one class after another."""
    system = sp.eye(wn.shape[0], format="csr") - alpha * wn
    z = np.zeros((wn.shape[0], classes))
    for c in range(classes):
        chosen = labels == c
        y = chosen / max(1, chosen.sum())
        z[:, c], _ = sp.linalg.cg(system, y, rtol=1e-6, maxiter=20)
    return z


@dataclass(frozen=True)
class Step:
    """One whole propagation step's pseudo-labels [n]."""

    labels: Array
    scores: Array


def propagate(v: Array, labels: Array, classes: int, k: int = 50) -> Step:
    """The whole step: search, graph, solve, pseudo-labels; a labelled point keeps its own."""
    z = solve(build_graph(*search(v, k)), labels, classes)
    return Step(np.where(labels >= 0, labels, z.argmax(axis=1)), z)
