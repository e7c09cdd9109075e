"""Class sizes in plain NumPy, float64, from the equations; nothing here is from `dlp_plugins`.

Shapes: n points, c classes.
"""

from __future__ import annotations

import numpy as np


def sinkhorn(z: np.ndarray, unlabeled: np.ndarray, pi: np.ndarray) -> np.ndarray:
    """P [n, c] = diag(a) Z diag(b): rows sum to 1, unlabelled columns to n_r pi_j.

    n_r: unlabelled rows with a positive entry. Classes without a positive entry stay without, and
    the others' pi are divided by their sum. Ten thousand steps, so that what is left is rounding.
    """
    z = np.maximum(z, 0)
    k = z[unlabeled & z.any(axis=1)]
    present = k.any(axis=0)
    pi = np.where(present, pi, 0) / pi[present].sum()
    b = np.ones(len(pi))
    for _ in range(10_000):
        a = 1 / (k @ b)
        b = np.where(present, len(k) * pi / np.where(present, k.T @ a, 1), 0)
    p = z * b
    total = p.sum(axis=1, keepdims=True)
    return p / np.where(total > 0, total, 1)


def em_shares(p: np.ndarray, power: float = 4, steps: int = 2000) -> np.ndarray:
    """pi_j = mean_i pi_j g_ij / sum_k pi_k g_ik, g = p^4, from equal pi, until it stays."""
    g = p[p.any(axis=1)] ** power
    pi = np.full(p.shape[1], 1 / p.shape[1])
    for _ in range(steps):
        r = g * pi
        pi = (r / r.sum(axis=1, keepdims=True)).mean(axis=0)
    return pi
