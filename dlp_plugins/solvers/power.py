"""Power iteration: the fixed point of Zhou et al., from which the method comes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dlp_plugins.registry import solvers
from dlp_plugins.solvers._local_order import in_local_order
from dlp_plugins.solvers.contract import (
    Alpha,
    MaxIterations,
    Operator,
    Solution,
    Solver,
    Tolerance,
    all_true,
    checks,
    column_norms,
    goal,
    relative_residual,
    usable_guess,
)


@solvers.register("power")
@dataclass(frozen=True)
class PowerIteration(Solver):
    """Z <- alpha Wn Z + (1 - alpha) Y (Zhou et al., NIPS 2003), then divided by (1 - alpha).

    Converges as alpha^t: at alpha = 0.99 it needs hundreds of iterations where conjugate gradient
    needs dozens.
    """

    alpha: Alpha = 0.99
    max_iterations: MaxIterations = 200
    tolerance: Tolerance = 1e-6
    vectors = 5

    @in_local_order
    def solve(self, state: Operator, labels: Tensor, initial: Tensor | None = None) -> Solution:
        # Without the factor (1 - alpha) Z <- alpha Wn Z + Y has the system's own fixed point, and
        # the change in one step is the residual before it.
        z = labels.clone() if initial is None else usable_guess(state, labels, initial)
        iterations, done = 0, False
        while iterations < self.max_iterations and not done:
            z_next = state.matmul(z).mul_(self.alpha).add_(labels)
            change = column_norms(z.sub_(z_next))
            z, iterations = z_next, iterations + 1
            if iterations % checks(labels.device) == 0:
                done = all_true(change <= goal(self.tolerance, z, labels))
        residual = relative_residual(state, self.alpha, z, labels)
        return Solution.judged(z, iterations, residual, self.tolerance, labels)
