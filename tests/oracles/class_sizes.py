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


def poisson(w: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """u [n, c] of L u = F for labels [n] on a connected graph W [n, n]; columns over their counts.

    F: one-hot labelled rows over their class's number of labels, less their mean (Calder et al.,
    ICML 2020, eq. 2.2); u of mean 0 weighted by degree, and one constant added, which changes no
    argmax.
    """
    c = labels.max() + 1
    hot = (labels[:, None] == np.arange(c)) / np.bincount(labels[labels >= 0])
    source = np.where(labels[:, None] >= 0, hot - hot[labels >= 0].mean(axis=0), 0)
    degree = w.sum(axis=1)
    u = np.linalg.pinv(np.diag(degree) - w) @ source
    return u - degree @ u / degree.sum()


def sized(u: np.ndarray, pi: np.ndarray, slack: float) -> np.ndarray:
    """r [c] so that argmax r_j u_ij gives class j a size in proportion to pi_j r_j^(-slack)."""
    r, best, least = pi / u.sum(axis=0), None, np.inf
    for step in range(300):
        size = np.bincount((u * r).argmax(axis=1), minlength=len(pi))
        goal = pi * r**-slack
        goal *= len(u) / goal.sum()
        if (missed := np.abs(goal - size).max()) < least:
            best, least = r, missed
        r = r * np.exp((goal - size) / len(u) / (1 + step / 50))
    assert best is not None
    return best


def poisson_mbo(
    w: np.ndarray,
    labels: np.ndarray,
    pi: np.ndarray,
    rounds: int = 20,
    steps: int = 40,
    slack: float | None = None,
) -> np.ndarray:
    """Scores r_j u_ij [n, c] of the last round of Poisson MBO, on a connected graph.

    U = X, 40 times U = U - dt (L U - F), F one-hot labelled rows less their mean, dt = 1 / max D;
    X one-hot of argmax r_j u_ij, labelled rows as given. By class mass r_j = n_u pi_j / sum of u_ij
    clipped at 0 over unlabelled points; with `slack` r as of `sized`, for the first labels as well.
    """
    c, labeled = labels.max() + 1, labels >= 0
    hot = (labels[:, None] == np.arange(c)).astype(float)
    source = np.where(labeled[:, None], hot - hot[labeled].mean(axis=0), 0)
    degree = w.sum(axis=1)
    walk = np.eye(len(w)) - (np.diag(degree) - w) / degree.max()
    scores = poisson(w, labels)
    if slack is not None:
        positive = scores + (degree @ np.abs(scores)).sum() / degree.sum() / c
        positive = np.maximum(positive, 0)
        scores = positive * sized(positive[~labeled], pi, slack)
    for _ in range(rounds):
        u = np.where(labeled[:, None], hot, np.eye(c)[scores.argmax(axis=1)])
        for _ in range(steps):
            u = walk @ u + source / degree.max()
        u = np.maximum(u, 0)
        mass = (~labeled).sum() * pi / u[~labeled].sum(axis=0)
        scores = u * (mass if slack is None else sized(u[~labeled], pi, slack))
    return scores


def cut(w: np.ndarray, classes: np.ndarray) -> float:
    """Sum of the weights of all edges whose ends have different classes [n]."""
    return float(w[classes[:, None] != classes].sum() / 2)


def least_cut(w: np.ndarray, labels: np.ndarray, sizes: np.ndarray) -> float:
    """The least cut of all labels that keep the given ones and give the rest these sizes [c]."""
    free = np.flatnonzero(labels < 0)
    own, best = labels.copy(), np.inf

    def fill(at: int, left: list[int]) -> None:
        nonlocal best
        if at == len(free):
            best = min(best, cut(w, own))
            return
        for j in range(len(left)):
            if left[j] > 0:
                own[free[at]] = j
                left[j] -= 1
                fill(at + 1, left)
                left[j] += 1

    fill(0, list(sizes))
    return best
