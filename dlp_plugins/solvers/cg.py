"""Conjugate gradient on all classes at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlp_plugins.graph import Graph
from dlp_plugins.registry import solvers
from dlp_plugins.solvers.contract import (
    Alpha,
    MaxIterations,
    Solution,
    Solver,
    Tolerance,
    relative_residual,
)


@solvers.register("cg")
@dataclass(frozen=True)
class ConjugateGradient(Solver):
    """Conjugate gradient for (I - alpha Wn) Z = Y; one sparse product an iteration for all classes.

    The matrix is symmetric positive definite for 0 <= alpha < 1. Every class has step sizes of its
    own; a class that has converged no longer moves. Iscen et al., section 3.2, use 20 iterations
    at most and a relative tolerance of 1e-6. SciPy's equivalent: `scipy.sparse.linalg.cg`.
    """

    alpha: Alpha = 0.99
    max_iterations: MaxIterations = 20
    tolerance: Tolerance = 1e-6

    def solve(self, state: Graph, labels: Tensor, initial: Tensor | None = None) -> Solution:
        goal = self.tolerance * labels.norm(dim=0)
        z = torch.zeros_like(labels) if initial is None else initial.clone()
        r = labels - z + self.alpha * state.matmul(z) if initial is not None else labels.clone()
        p = r.clone()
        rr = (r * r).sum(dim=0)
        iterations = 0
        while iterations < self.max_iterations and (active := rr.sqrt() > goal).any():
            q = p - self.alpha * state.matmul(p)
            # A class that is done keeps its z: its step is 0, and 0/0 never arises.
            step = torch.where(active, rr / (p * q).sum(dim=0), 0.0)
            z += step * p
            r -= step * q
            previous, rr = rr, (r * r).sum(dim=0)
            p = r + torch.where(active, rr / previous, 0.0) * p
            iterations += 1
        # The recurrence's r drifts from the true residual; what is reported is the true one.
        residual = relative_residual(state, self.alpha, z, labels)
        return Solution(z, iterations, residual, bool((residual <= 2 * self.tolerance).all()))
