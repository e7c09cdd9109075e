"""Power iteration: the fixed point of Zhou et al., the seed of the method."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlp_plugins.graph import Graph
from dlp_plugins.registry import solvers
from dlp_plugins.solvers.contract import Alpha, MaxIterations, Solution, Solver, Tolerance


@solvers.register("power")
@dataclass(frozen=True)
class PowerIteration(Solver):
    """Z <- alpha Wn Z + (1 - alpha) Y (Zhou et al., NIPS 2003), then divided by (1 - alpha).

    Converges like alpha^t: at alpha = 0.99 it needs hundreds of iterations where conjugate gradient
    needs dozens.
    """

    alpha: Alpha = 0.99
    max_iterations: MaxIterations = 200
    tolerance: Tolerance = 1e-6

    def solve(self, state: Graph, labels: Tensor, initial: Tensor | None = None) -> Solution:
        # The factor (1 - alpha) is left out: Z <- alpha Wn Z + Y has the system's own fixed point,
        # and the change in one step is that step's residual.
        z = labels.clone() if initial is None else initial.clone()
        size = labels.norm(dim=0)
        residual = torch.full_like(size, torch.inf)
        iterations = 0
        while iterations < self.max_iterations and (residual > self.tolerance).any():
            z_next = torch.add(labels, state.matmul(z), alpha=self.alpha)
            change = (z_next - z).norm(dim=0)
            residual = torch.where(size > 0, change / size, 0.0)
            z = z_next
            iterations += 1
        return Solution(z, iterations, residual, bool((residual <= self.tolerance).all()))
