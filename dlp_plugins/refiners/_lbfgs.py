"""L-BFGS for smooth convex functions: SciPy's takes 0.3 s to load, torch's its compiler as well."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

HISTORY = 10  # pairs of steps and changes of the gradient that stand for the second derivative
DECREASE, CURVATURE = 1e-4, 0.9  # of the weak Wolfe conditions on a step
MAX_TRIALS = 40  # step sizes tried along one direction


def minimize(
    loss: Callable[[Tensor], tuple[float, Tensor]],
    start: Tensor,
    tolerance: float,
    max_iterations: int,
) -> Tensor:
    """The argument [p] float64 at which no entry of the gradient is larger than the tolerance.

    Nocedal and Wright, Numerical Optimization, 2006, algorithm 7.5, with steps found by bisection
    (Lewis and Overton, 2013). Stops earlier where rounding allows no further decrease, or after
    `max_iterations`.

    Args:
        loss: value and gradient [p] at a point.
    """
    x, (value, gradient) = start, loss(start)
    pairs: deque[tuple[Tensor, Tensor]] = deque(maxlen=HISTORY)
    for _ in range(max_iterations):
        if float(gradient.abs().max()) <= tolerance:
            break
        direction = -_inverse_product(pairs, gradient)
        slope = float(gradient @ direction)
        low, high = 0.0, torch.inf
        step = 1.0 if pairs else min(1.0, 1 / float(gradient.norm()))
        rounding = 1e-15 * abs(value)
        for _ in range(MAX_TRIALS):
            new = x + step * direction
            new_value, new_gradient = loss(new)
            if new_value > value + DECREASE * step * slope + rounding:
                high = step
            elif float(new_gradient @ direction) < CURVATURE * slope:
                low = step
            else:
                break
            step = (low + high) / 2 if high < torch.inf else 2 * low
        else:
            break
        pairs.append((new - x, new_gradient - gradient))
        x, value, gradient = new, new_value, new_gradient
    return x


def _inverse_product(pairs: deque[tuple[Tensor, Tensor]], gradient: Tensor) -> Tensor:
    """The approximate inverse of the second derivative times the gradient: two loops over pairs."""
    q, factors = gradient.clone(), []
    for s, y in reversed(pairs):
        factors.append(float(s @ q) / float(s @ y))
        q -= factors[-1] * y
    if pairs:
        s, y = pairs[-1]
        q *= float(s @ y) / float(y @ y)
    for (s, y), factor in zip(pairs, reversed(factors), strict=True):
        q += (factor - float(y @ q) / float(s @ y)) * s
    return q
