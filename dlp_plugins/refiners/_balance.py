"""Moves the classes' shares among unlabelled points part of the way to the wanted ones."""

from __future__ import annotations

import torch
from torch import Tensor

from dlp_plugins.solvers._rows import RowBlocks

MAX_STEPS = 30
POWER = 0.25  # 1 would force the shares, which costs 10 points of accuracy where they are wrong
TOLERANCE = 0.001  # change of log b at which to stop


def balance(p: Tensor, unlabeled: Tensor, shares: Tensor, blocks: RowBlocks) -> Tensor:
    """Unlabelled rows of p [n, c] times diag(b), rows to sum 1, in place; returns b [c].

    From b = 1: a_i = 1 / (p b)_i, b_j = (n_u pi_j / (p^T a)_j)^0.25 over the n_u unlabelled points.
    A column of zeros, or of a class of which there are to be none, keeps b = 1.

    Args:
        unlabeled: [n] float32, 1 for an unlabelled point, 0 for a labelled one.
        shares: pi [c].
    """
    log_wanted = (unlabeled.sum(dtype=torch.float64) * shares.double()).log()
    log_b = torch.zeros_like(log_wanted)
    for _ in range(MAX_STEPS):
        b = log_b.exp().to(p)

        def masses(rows: slice, b: Tensor = b) -> Tensor:
            block = p[rows]
            return block.T.mv(unlabeled[rows] / block.mv(b))

        mass = torch.stack(blocks.map(masses)).double().sum(dim=0)
        new = torch.where((mass > 0) & (shares > 0), POWER * (log_wanted - mass.log()), 0.0)
        moved = float((new - log_b).abs().max())
        log_b = new
        if moved < TOLERANCE:
            break
    b = log_b.exp().to(p)

    def divide(rows: slice) -> None:
        block = p[rows]
        scaled = block * b
        scaled /= scaled.sum(dim=1, keepdim=True)
        torch.where(unlabeled[rows, None] > 0, scaled, block, out=block)

    blocks.map(divide)
    return b
