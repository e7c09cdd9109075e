"""A solve by several processes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dlp_plugins.processes.group import Processes
from dlp_plugins.solvers.contract import Solution, Solver


def solve_together(
    solver: Solver, state: Any, y: Tensor, initial: Tensor | None, processes: Processes
) -> Solution:
    """Scores of y [n, c]: each process solves its share of the classes, and all get all.

    A solver whose classes depend on each other runs in the first process while the others wait.
    """
    c = y.shape[1]
    shares = processes.shares(c)
    if not solver.columnwise:
        shares = [slice(0, c), *[slice(c, c)] * (processes.size - 1)]
    own, counts = shares[processes.rank], [s.stop - s.start for s in shares]
    columns = residual = None
    found: Solution | None = None
    if counts[processes.rank]:
        guess = None if initial is None else initial[:, own].contiguous()
        found = solver.solve(state, y[:, own].contiguous(), guess)
        columns, residual = found.scores.T.contiguous(), found.residual
    scores = processes.gather_rows(columns, counts).T.contiguous()
    residuals = processes.gather_rows(residual, counts)
    own_report = (
        None if found is None
        else (found.iterations, found.converged, found.limited_by_precision)
    )  # fmt: skip
    reports = [report for report in processes.each(own_report) if report is not None]
    converged = all(done for _, done, _ in reports)
    return Solution(
        scores,
        max(iterations for iterations, _, _ in reports),
        residuals,
        converged,
        not converged and all(done or limited for _, done, limited in reports),
    )
