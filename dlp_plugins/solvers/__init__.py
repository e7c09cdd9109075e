"""Propagation solvers: one file per solver, found by `dlp_plugins.registry.solvers`."""

from dlp_plugins.solvers.contract import (
    Alpha,
    MaxIterations,
    Solution,
    Solver,
    Tolerance,
    relative_residual,
)

__all__ = ["Alpha", "MaxIterations", "Solution", "Solver", "Tolerance", "relative_residual"]
