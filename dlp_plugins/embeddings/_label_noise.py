"""How likely each label is wrong, given what everything but itself says of its point.

Shapes: m labels, c classes. A label y of a point whose true class is t arises with probability
(1 - e) [y = t] + e N_ty: e is the share of wrong labels, N_t says which class a wrong label names.
Half of N is the same for every other class, half goes to classes that the evidence r confuses with
t: N_ty = 1/2 1/(c-1) + 1/2 K_ty, K_ty in proportion to sum_i r_it r_iy, y not t. e is found by
expectation maximisation (Dempster, Laird and Rubin, 1977), as in Dawid and Skene, 1979.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

CONFUSED = 0.5  # of wrong labels, that name a similar class and not just any
START, LEAST = 0.1, 1e-6  # of the share of wrong labels
MAX_STEPS = 300
TOLERANCE = 1e-6
TINY = 1e-300


@dataclass(frozen=True)
class LabelNoise:
    """The share of wrong labels, and what class a wrong one names.

    error_rate: e.
    names: N [c, c].
    """

    error_rate: float
    names: np.ndarray

    @classmethod
    def fit(cls, rest: np.ndarray, labels: np.ndarray) -> Self:
        """From evidence r [m, c], rows that sum to 1, and labels [m] that it does not know."""
        c = rest.shape[1]
        uniform = (1 - np.eye(c)) / max(1, c - 1)
        confused = (rest.T @ rest) * (1 - np.eye(c))
        total = confused.sum(axis=1, keepdims=True)
        confused = np.where(total > 0, confused / np.maximum(total, TINY), uniform)
        names = CONFUSED * confused + (1 - CONFUSED) * uniform
        found, e = cls(START, names), START
        for _ in range(MAX_STEPS if len(labels) else 0):
            e = max(LEAST, float(found.doubt(rest, labels).mean()))
            moved = abs(e - found.error_rate)
            found = cls(e, names)
            if moved < TOLERANCE:
                break
        return found

    def doubt(self, rest: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """[m] probability that each label is wrong: that its point is of another class."""
        right = (1 - self.error_rate) * rest[np.arange(len(labels)), labels]
        # N_tt = 0: the class of the label itself adds nothing
        wrong = self.error_rate * (rest * self.names[:, labels].T).sum(axis=1)
        return wrong / np.maximum(right + wrong, TINY)
