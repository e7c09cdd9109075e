"""Class sizes kept: rows of probabilities sum to 1, columns to the size of each class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from dlp_plugins.graph import read_host
from dlp_plugins.normalizers.contract import Blocks, Normalizer
from dlp_plugins.registry import normalizers

CHECK_EVERY = 5  # passes from one look at the sizes to the next, as a look waits for a GPU
TOLERANCE = 1e-3  # relative error of a class's size at which to stop
TINY = torch.finfo(torch.float64).tiny


@normalizers.register("sinkhorn")
@dataclass(frozen=True)
class Sinkhorn(Normalizer):
    """P = diag(a) Z diag(b), Z clipped at 0: rows sum to 1, columns to n pi_j over unlabelled rows.

    From b of class mass, a_i = 1 / (Z b)_i and b_j = n pi_j / (Z^T a)_j in turn (Sinkhorn and
    Knopp, 1967), n the unlabelled points with a positive score, until every column is within 0.1 %
    of its size. Where islands of the graph allow no such P, the last step's is taken. A column of
    zeros stays zero, and so does a row. The share of a class that no unlabelled point has a score
    of goes to the others; its b is the largest.
    """

    passes: Annotated[int, Field(ge=1, description="passes over all points at most")] = 100

    def fit(self, blocks: Blocks, shares: Tensor) -> Tensor | None:
        """b [c] float64, the largest 1."""
        wanted = shares.double()
        there = _masses(blocks, None)
        b = _column_factors(wanted, there)
        for done in range(self.passes):
            mass = _masses(blocks, b)
            # rows sum to 1, so that b * mass sums to the number of rows
            target = torch.where(mass > 0, wanted, 0.0)
            target *= (b * mass).sum() / target.sum().clamp(min=TINY)
            near = (b * mass - target).abs() <= TOLERANCE * target
            if done % CHECK_EVERY == 0 and read_host(near).all():
                break
            b = _column_factors(target, mass)
        return torch.where(there > 0, b, 1.0)

    def apply(self, scores: Tensor, total: Tensor | None, shares: Tensor) -> Tensor:
        assert total is not None
        p = scores.double().clamp(min=0) * total
        mass = p.sum(dim=1, keepdim=True)
        return torch.where(mass > TINY, p / mass, 0.0).to(scores)


def _masses(blocks: Blocks, b: Tensor | None) -> Tensor:
    """(Z^T a) [c] over unlabelled rows, a_i = 1 / (Z b)_i; a = 1 where b is None."""
    parts = []
    for scores, unlabeled in blocks():
        z = torch.where(unlabeled[:, None], scores, 0.0).double().clamp_(min=0)
        if b is None:
            parts.append(z.sum(dim=0))
        else:
            row = z @ b
            parts.append(torch.where(row > TINY, 1 / row, 0.0) @ z)
    return torch.stack(parts).sum(dim=0)


def _column_factors(wanted: Tensor, mass: Tensor) -> Tensor:
    """wanted / mass, over the largest; 0 for a column of zeros."""
    b = torch.where(mass > 0, wanted / mass, 0.0)
    return b / b.max().clamp(min=TINY)
