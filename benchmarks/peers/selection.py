"""Which points to label next, beside graphlearning: `benchmarks/suggest_quality.py` with its two.

    python -m benchmarks.peers.selection [--data FOLDER] [--sets NAME ...]

graphlearning's acquisition functions need labels: first as many random points as there are classes,
then one point after another, each labelled before the next is chosen, with Laplace learning as the
model. `dlp suggest` chooses all points at once. Accuracy is that of `dlp propagate`'s default.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks import suggest_quality
from benchmarks.suggest_quality import Problem

EIGENVECTORS = 100  # for VOpt's covariance
SEEDS = 5
PEERS = ("graphlearning, uncertainty", "graphlearning, VOpt")


def choose(problem: Problem, name: str, count: int, seed: int) -> np.ndarray:
    """`count` points by that selector or by graphlearning's of that name."""
    if name not in PEERS:
        return own_choice(problem, name, count, seed)
    import graphlearning as gl

    points = own_choice(problem, "random", problem.num_classes, seed)
    w = gl.weightmatrix.knn(problem.f.numpy(), 10)
    settings: dict[str, Any] = {}
    acquisition = gl.active_learning.unc_sampling
    if name == PEERS[1]:
        acquisition = gl.active_learning.var_opt
        values, vectors = gl.graph(w).eigen_decomp(normalization="normalized", k=EIGENVECTORS)
        settings = {"C": np.diag(1 / (values + 1e-11)), "V": vectors}

    def learner_of(points: np.ndarray) -> tuple[Any, np.ndarray]:
        """A learner that knows these labels, and the classes that occur: it takes no others."""
        classes, labels = np.unique(problem.y[points], return_inverse=True)
        laplace = gl.ssl.laplace(w)
        return gl.active_learning.active_learner(
            laplace, acquisition, points, labels, **settings
        ), classes

    learner, classes = learner_of(points)
    while len(points) < count:
        chosen = learner.select_queries()
        points = np.append(points, chosen)
        if np.isin(problem.y[chosen], classes).all():
            learner.update(chosen, np.searchsorted(classes, problem.y[chosen]))
        else:
            learner, classes = learner_of(points)
    return points[:count]


own_choice = suggest_quality.choose

if __name__ == "__main__":
    suggest_quality.choose = choose
    suggest_quality.SEEDS |= dict.fromkeys(PEERS, SEEDS)
    suggest_quality.NAMES += PEERS
    suggest_quality.main()
