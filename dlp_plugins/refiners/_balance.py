"""Evens out the classes' shares among unlabelled points, in part."""

from __future__ import annotations

import torch
from torch import Tensor

from dlp_plugins.solvers._rows import EachBlock

MAX_STEPS = 30
POWER = 0.25  # of the correction of a step; 1 would force the shares, at a high cost where they are off
TOLERANCE = 0.001  # change of log b at which to stop


def balance(p: Tensor, unlabeled: Tensor, shares: Tensor, each: EachBlock) -> Tensor:
    """Factors b [c] float32 of the columns of p [n, c], rows of which then want to be divided by sums.

    From b = 1: a_i = 1 / (p b)_i, b_j = (n_u pi_j / (p^T a)_j)^0.25 over the n_u unlabelled points.
    A column of zeros keeps b = 1.

    Args:
        unlabeled: [n] float32, 1 for an unlabelled point, 0 for a labelled one.
        shares: pi [c].
    """
    wanted = float(unlabeled.sum(dtype=torch.float64)) * shares.double()
    log_b = torch.zeros_like(wanted)
    for _ in range(MAX_STEPS):
        b = log_b.exp().to(p)

        def masses(rows: slice, b: Tensor = b) -> Tensor:
            block = p[rows]
            return block.T.mv(unlabeled[rows] / block.mv(b))

        mass = torch.stack(each(masses, p)).double().sum(dim=0)
        new = torch.where(mass > 0, POWER * (wanted.log() - mass.log()), 0.0)
        moved = float((new - log_b).abs().max())
        log_b = new
        if moved < TOLERANCE:
            break
    return log_b.exp().to(p)
