"""Labels of which every class has its size: factors of the classes' scores.

Shapes: n points, c classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dlp_plugins.graph import read_host

MAX_STEPS = 60
FIRST_STEP, LARGEST_STEP = 0.05, 0.5  # of the logarithm of a factor
SMALLER, LARGER = 0.5, 1.2  # factors of a step after a change of direction, and without one
NEAR = 1e-3  # share of the points by which every class may miss its size; one point at least
TINY = 1e-30
MOST = 1e6  # by which a class may be larger than another beside what is wanted


def mass_factors(scores: Tensor, counted: Tensor, wanted: Tensor) -> Tensor:
    """r [c], wanted sizes over the sums of scores >= 0 [n, c]; 0 for a class without scores.

    Args:
        counted: [n], 1 for a point that counts, else 0.
        wanted: [c] sizes.
    """
    mass = counted @ scores
    return torch.where(mass > 0, wanted / mass.clamp(min=TINY), 0.0)


def size_factors(scores: Tensor, counted: Tensor, wanted: Tensor, slack: float = 0.0) -> Tensor:
    """r [c] so that argmax_j r_j u_ij gives every class its size, of scores u >= 0 [n, c].

    With slack the sizes follow the scores part of the way: class j gets wanted_j r_j^(-slack) over
    the sum of these, so that a class is smaller the more its scores must be raised.

    From `mass_factors`, each log r_j moves towards its size by a step of its own, which grows while
    the direction stays and shrinks when it turns (Riedmiller and Braun, 1993). It ends when every
    size is within NEAR of the points, or one point, and else returns the nearest found.

    Args:
        slack: at least 0.
    """
    possible = wanted * (counted @ scores > 0)
    log_r = mass_factors(scores, counted, wanted).clamp(min=TINY).log()
    step, direction = torch.full_like(log_r, FIRST_STEP), torch.zeros_like(log_r)
    enough = (NEAR * counted.sum()).clamp(min=1)
    best, least = log_r, torch.full_like(enough, torch.inf)
    for _ in range(MAX_STEPS):
        chosen = (scores * log_r.exp()).argmax(dim=1)
        size = torch.zeros_like(wanted).index_add_(0, chosen, counted.to(wanted))
        goal = wanted
        if slack:
            goal = possible * (-slack * (log_r - log_r.max())).exp().clamp(max=MOST)
            goal = goal * wanted.sum() / goal.sum().clamp(min=TINY)
        gap = goal - size
        missed = gap.abs().max()
        best, least = torch.where(missed < least, log_r, best), torch.minimum(missed, least)
        if scores.device.type == "cpu" and read_host(missed <= enough).all():
            break
        new = torch.where(gap.abs() < 1, 0.0, gap.sign())
        turned = new * direction
        step = torch.where(turned < 0, SMALLER * step, torch.where(turned > 0, LARGER * step, step))
        step = step.clamp(max=LARGEST_STEP)
        log_r, direction = log_r + new * step, new
    return best.exp() * (wanted > 0)
