"""Zero-shot label propagation (Stojnic, Kalantidis and Tolias, CVPR 2024) in plain NumPy, float64.

Nothing here is from `dlp_plugins`. Shapes: n images, c classes, d numbers each.
"""

from __future__ import annotations

import numpy as np


def unit(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, dtype=np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def scores(
    x: np.ndarray, t: np.ndarray, labels: np.ndarray, k: int = 5, gamma: float = 5,
    alpha: float = 0.3,
) -> np.ndarray:  # fmt: skip
    """Z [n, c] of images x [n, d], prototypes t [c, d] and labels [n], -1 where there is none."""
    x, t = unit(x), unit(t)
    n, c = len(x), len(t)
    a = np.zeros((n + c, n + c))
    for i in range(n):
        similarity = x @ x[i]
        similarity[i] = -np.inf
        near = np.argsort(-similarity)[:k]
        a[i, near] = np.maximum(similarity[near], 0)
        to_prototypes = t @ x[i]
        near = np.argsort(-to_prototypes)[:k]
        a[i, n + near] = np.maximum(to_prototypes[near], 0) ** gamma
    w = a + a.T
    degree = w.sum(axis=1)
    scale = np.where(degree > 0, degree, np.inf) ** -0.5
    y = np.zeros((n + c, c))
    y[n + np.arange(c), np.arange(c)] = 1
    y[np.flatnonzero(labels >= 0), labels[labels >= 0]] = 1
    y /= y.sum(axis=0)
    return np.linalg.solve(np.eye(n + c) - alpha * scale[:, None] * w * scale, y)[:n]
