"""The sigmoid ramp-up of a consistency weight (Laine and Aila, 2017)."""

from __future__ import annotations

import math


def ramp_up(epoch: float, length: float) -> float:
    """exp(-5 (1 - t)^2), t = min(epoch / length, 1); 1 if length is 0."""
    if length == 0:
        return 1.0
    t = min(epoch / length, 1.0)
    return math.exp(-5.0 * (1.0 - t) ** 2)
