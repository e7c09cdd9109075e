"""Class mass normalisation: every class gets its share of the unlabelled points."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlp_plugins.normalizers.contract import Normalizer
from dlp_plugins.registry import normalizers


@normalizers.register("class_mass")
@dataclass(frozen=True)
class ClassMass(Normalizer):
    """Column j of the scores, clipped at 0, times n_u pi_j over its sum; then rows to sum 1.

    The sum is over the n_u unlabelled points, or over all where these have none of the class; pi is
    uniform unless given (Zhu, Ghahramani and Lafferty, 2003, section 4). A column of zeros stays
    zero, and so does a row.
    """

    def statistics(self, scores: Tensor, unlabeled: Tensor) -> Tensor:
        """[2, c] sums over unlabelled and over all points."""
        z = scores.clamp(min=0)
        every = z.sum(dim=0, dtype=torch.float64)
        z.masked_fill_(~unlabeled[:, None], 0)
        return torch.stack([z.sum(dim=0, dtype=torch.float64), every])

    def apply(self, scores: Tensor, total: Tensor | None, shares: Tensor) -> Tensor:
        assert total is not None
        total = torch.where(total[0] > 0, total[0], total[1])
        # n_u is the same for every class, and so has no effect on rows divided by their sums.
        # The largest factor to 1: sums of few labels over many points leave float32 otherwise
        factor = torch.where(total > 0, shares.double() / total, 0.0)
        factor = (factor / factor.max().clamp(min=torch.finfo(torch.float64).tiny)).to(scores)
        p = scores.clamp(min=0) * factor
        mass = p.sum(dim=1, keepdim=True)
        return torch.where(mass > torch.finfo(p.dtype).tiny, p / mass, 0.0)
