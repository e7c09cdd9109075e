"""A small real set, and a few labels of it."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits


def digits() -> tuple[np.ndarray, np.ndarray]:
    """600 images of digits [n, 64] and their classes [n]."""
    x, y = load_digits(return_X_y=True)
    return x[:600], y[:600]


def some_labels(y: np.ndarray, per_class: int, seed: int = 0) -> np.ndarray:
    """[n]: so many labels of each class, -1 elsewhere."""
    rng = np.random.default_rng(seed)
    labels = np.full(len(y), -1)
    for j in np.unique(y):
        chosen = rng.choice(np.flatnonzero(y == j), per_class, replace=False)
        labels[chosen] = j
    return labels
