"""Chebyshev semi-iteration: no inner products, so no sums to wait for between iterations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dlp_plugins.registry import solvers
from dlp_plugins.solvers._local_order import in_local_order
from dlp_plugins.solvers.contract import (
    CHECK_EVERY,
    Alpha,
    MaxIterations,
    Norms,
    Operator,
    Solution,
    Solver,
    Tolerance,
    all_true,
    column_norms,
    goal,
    relative_residual,
    usable_guess,
)


@solvers.register("chebyshev")
@dataclass(frozen=True)
class Chebyshev(Solver):
    """Power iteration accelerated by the known spectrum of alpha Wn, [-alpha, alpha].

    z_(t+1) = z_(t-1) + omega_t (alpha Wn z_t + y - z_(t-1)), omega_(t+1) = 1 / (1 - alpha^2 omega_t
    / 4), from omega_0 = 1 and omega_1 = 1 / (1 - alpha^2 / 2) (Golub and Varga, 1961). The residual
    falls by (1 - sqrt(1 - alpha^2)) / alpha per iteration: 0.87 at alpha = 0.99. Conjugate gradient
    needs fewer iterations; this one has no sums over all nodes to wait for.
    """

    alpha: Alpha = 0.99
    max_iterations: MaxIterations = 200
    tolerance: Tolerance = 1e-6
    vectors = 7

    @property
    def usual_iterations(self) -> int:
        """Iterations after which the residual is within the tolerance, by the rate above."""
        if self.alpha == 0:
            return 1
        rate = self.alpha / (1 + math.sqrt(1 - self.alpha**2))  # the same, without cancellation
        return min(self.max_iterations, math.ceil(math.log(self.tolerance / 2, rate)))

    @in_local_order
    def solve(self, state: Operator, labels: Tensor, initial: Tensor | None = None) -> Solution:
        z = labels.clone() if initial is None else usable_guess(state, labels, initial)
        iterations = self.improve_(z, state, labels)
        residual = relative_residual(state, self.alpha, z, labels)
        return Solution.judged(z, iterations, residual, self.tolerance, labels)

    def improve_(
        self, z: Tensor, state: Operator, labels: Tensor, norms: Norms = column_norms
    ) -> int:
        """Iterate from z [n, c] on, in place, until the residuals are within the tolerance.

        Args:
            norms: of the columns of matrices of that shape.

        Returns:
            Products with the graph.
        """
        # The step d = z_(t+1) - z_t is kept, not z_(t-1): it goes to 0, and its rounding with it.
        step, omega = torch.zeros_like(z), 1.0
        for iteration in range(1, self.max_iterations + 1):
            residual = state.matmul(z).mul_(self.alpha).add_(labels).sub_(z)
            if iteration % CHECK_EVERY == 1 and all_true(
                norms(residual) <= goal(self.tolerance, z, labels, norms)
            ):
                break
            z += step.mul_(omega - 1).add_(residual, alpha=omega)
            omega = 1 / (1 - self.alpha**2 * omega / (2 if iteration == 1 else 4))
        return iteration
