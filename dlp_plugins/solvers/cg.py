"""Conjugate gradient on all classes at once."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dlp_plugins.registry import solvers
from dlp_plugins.solvers._conjugate_gradient import conjugate_gradient
from dlp_plugins.solvers._local_order import in_local_order
from dlp_plugins.solvers.contract import (
    Alpha,
    MaxIterations,
    Operator,
    Solution,
    Solver,
    Tolerance,
    usable_guess,
)


@solvers.register("cg")
@dataclass(frozen=True)
class ConjugateGradient(Solver):
    """Conjugate gradient for (I - alpha Wn) Z = Y; one product per iteration for all classes.

    The matrix is symmetric positive definite for 0 <= alpha < 1. Every class has its own step
    sizes; a class that has converged leaves the product. Iscen et al., section 3.2, use at most 20
    iterations and a relative tolerance of 1e-6. SciPy's equivalent: `scipy.sparse.linalg.cg`.
    """

    alpha: Alpha = 0.99
    max_iterations: MaxIterations = 20
    tolerance: Tolerance = 1e-6
    vectors = 8

    @in_local_order
    def solve(self, state: Operator, labels: Tensor, initial: Tensor | None = None) -> Solution:
        guess = None if initial is None else usable_guess(state, labels, initial)
        z, iterations, residual = conjugate_gradient(
            state, self.alpha, labels, guess, self.tolerance, self.max_iterations
        )
        return Solution.judged(z, iterations, residual, self.tolerance, labels)
