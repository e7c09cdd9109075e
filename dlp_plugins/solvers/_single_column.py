"""One column of a system by conjugate gradient in NumPy and SciPy.

The shared solver is for many columns at once: at 50,000 points of 10 neighbours a single one takes
20 ms of CPU here and 60 ms there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

MAX_ITERATIONS = 1_000


def solve_column(wn: Any, alpha: float, b: np.ndarray, tolerance: float) -> np.ndarray:
    """(I - alpha Wn)^-1 b [n] float32, to a relative residual (of the recurrence) of `tolerance`.

    Hestenes and Stiefel, 1952.

    Args:
        wn: SciPy CSR matrix [n, n] float32.
        b: [n] float32.
    """
    x, r = np.zeros_like(b), b.copy()
    p, rr = r.copy(), float(r @ r)
    goal = tolerance**2 * rr
    for _ in range(MAX_ITERATIONS):
        if rr <= goal:
            break
        q = p - alpha * (wn @ p)
        step = rr / float(p @ q)
        x += step * p
        r -= step * q
        before, rr = rr, float(r @ r)
        p = r + (rr / before) * p
    return x
