"""Cosine learning rate (Loshchilov and Hutter, 2017) that would reach 0 after the stage's end."""

from __future__ import annotations

import math


def cosine(base: float, epoch: float, horizon: int) -> float:
    """base * (1 + cos(pi * epoch / horizon)) / 2; `epoch` counts from 0 and may be fractional."""
    return base * 0.5 * (1 + math.cos(math.pi * min(epoch, horizon) / horizon))
