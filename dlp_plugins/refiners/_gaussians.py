"""Linear discriminant analysis on soft labels: a Gaussian per class, one covariance for all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dlp_plugins.refiners.contract import Given
from dlp_plugins.solvers._rows import RowBlocks

LABEL_WEIGHT = 5.0  # of a labelled point, beside an unlabelled one's 1
SHRINKAGE = 0.5  # of the covariance, towards a multiple of the identity
TEMPERATURE = 0.4  # factor of the scores
LEAST_VARIANCE = 1e-6  # mean of a column within classes, as a share of the rows' mean square length
TINY = 1e-30


@dataclass(frozen=True)
class Moments:
    """What stays the same while soft labels change: labelled rows, and the sums of R's rows.

    R is P with labelled rows times 5 and the label's weight. Float64.

    second: F^T diag(R 1) F [d, d].
    labeled_first: E^T F [c, d], E = diag(5 w - 1) P of the labelled rows: what R has beyond P.
    labeled_mass: E^T 1 [c].
    total: sum of R.
    """

    second: Tensor
    labeled_first: Tensor
    labeled_mass: Tensor
    total: float

    @classmethod
    def of(cls, f: Tensor, given: Given, blocks: RowBlocks) -> Moments:
        """Of descriptors F [n, d]."""
        labeled = f[given.points].double()
        beyond = LABEL_WEIGHT * given.weights.double() - 1
        # R 1 is 1 but for labelled rows: F^T F, and a correction by these few
        second = _sum(lambda rows: f[rows].T @ f[rows], blocks)
        second.addmm_(labeled.T, beyond[:, None] * labeled)
        e = beyond[:, None] * given.distributions.double()
        return cls(second, e.T @ labeled, e.sum(dim=0), len(f) + float(beyond.sum()))

    def discriminant(self, f: Tensor, p: Tensor, blocks: RowBlocks) -> tuple[Tensor, Tensor]:
        """V [d, c] and u [c] float32 of the scores F V + u, for soft labels P [n, c].

        N = R^T 1, M = diag(1/N) R^T F, S = (F^T diag(R 1) F - M^T diag(N) M) / sum N,
        Sigma = S / 2 + (trace S / 2d) I, V = 0.4 Sigma^-1 M^T, u = -0.2 diag(M Sigma^-1 M^T);
        u = -inf for a class with N = 0.
        """
        first = _sum(lambda rows: p[rows].T @ f[rows], blocks).add_(self.labeled_first)
        mass = _sum(lambda rows: p[rows].sum(dim=0), blocks).add_(self.labeled_mass)
        present = mass > 0
        means = torch.where(present[:, None], first / mass[:, None], 0.0)
        covariance = (self.second - means.T @ (mass[:, None] * means)) / self.total
        # where classes do not vary at all, S is rounding, and may be negative
        least = max(float(self.second.trace()) / self.total * LEAST_VARIANCE, TINY)
        variance = (covariance.trace() / len(covariance)).clamp(min=least)
        sigma = (1 - SHRINKAGE) * covariance
        sigma.diagonal().add_(SHRINKAGE * variance)
        root, failed = torch.linalg.cholesky_ex(sigma)
        if failed:  # embeddings that hardly differ: rounding has made S indefinite
            root = variance.sqrt() * torch.eye(len(sigma), dtype=sigma.dtype, device=sigma.device)
        directions = torch.cholesky_solve(means.T, root)
        offsets = -(means.T * directions).sum(dim=0) / 2
        offsets[~present] = -torch.inf
        return (TEMPERATURE * directions).to(f), (TEMPERATURE * offsets).to(f)


def _sum(f: Callable[[slice], Tensor], blocks: RowBlocks) -> Tensor:
    """f of each block of rows, summed in float64."""
    first, *rest = blocks.map(f)
    total = first.double()
    for part in rest:
        total += part
    return total
