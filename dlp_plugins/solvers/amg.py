"""Conjugate gradient preconditioned by algebraic multigrid, for alpha close to 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import cg
from torch import Tensor

from dlp_plugins.graph import Graph, read_host
from dlp_plugins.registry import solvers
from dlp_plugins.solvers.contract import (
    Alpha,
    MaxIterations,
    Solution,
    Solver,
    Tolerance,
    relative_residual,
    usable_guess,
)


@solvers.register("amg", requires=("pyamg",), extra="amg")
@dataclass(frozen=True)
class MultigridConjugateGradient(Solver):
    """Conjugate gradient on I - alpha Wn with a smoothed-aggregation preconditioner (pyamg).

    One V-cycle per iteration (Vanek, Mandel and Brezina, 1996); the hierarchy is built once per
    graph. In float64 on the CPU, class by class. The number of iterations hardly grows as alpha
    goes to 1: that pays on long thin graphs at alpha >= 0.9999, not on nearest-neighbour graphs,
    where `cg` was several times faster (docs/performance.md).
    """

    alpha: Alpha = 0.99
    max_iterations: MaxIterations = 50
    tolerance: Tolerance = 1e-6
    vectors = 4

    def prepare(self, graph: Graph) -> Any:
        import pyamg

        matrix = sp.eye_array(graph.num_nodes, format="csr") - self.alpha * graph.to_scipy()
        matrix = sp.csr_matrix(matrix, dtype=np.float64)
        # D^(1/2) 1 spans the null space of I - Wn, where the error decays slowest. A node without
        # edges is a system of its own, for which any number but 0 will do.
        slowest = np.sqrt(read_host(graph.degree.double()))
        slowest[slowest == 0] = 1.0
        # pyamg estimates spectral radii with random vectors from NumPy's global state.
        drawn = np.random.get_state()
        np.random.seed(0)
        try:
            hierarchy = pyamg.smoothed_aggregation_solver(
                matrix, B=slowest[:, None], symmetry="symmetric"
            )
        finally:
            np.random.set_state(drawn)
        return graph, matrix, hierarchy.aspreconditioner(cycle="V")

    def prepared_bytes(self, nodes: int, entries: int) -> float:
        return 60.0 * entries + 1000.0 * nodes  # measured: the levels, and building them

    def solve(self, state: Any, labels: Tensor, initial: Tensor | None = None) -> Solution:
        graph, matrix, preconditioner = state
        guess = (
            None if initial is None else read_host(usable_guess(graph, labels, initial).double())
        )
        scores = torch.zeros_like(labels)
        most = 0
        for column in read_host(labels.any(dim=0)).nonzero()[0].tolist():
            steps: list[None] = []
            z, _ = cg(
                matrix,
                read_host(labels[:, column].double()),
                x0=None if guess is None else guess[:, column],
                rtol=self.tolerance,
                maxiter=self.max_iterations,
                M=preconditioner,
                callback=lambda _, steps=steps: steps.append(None),
            )
            scores[:, column] = torch.from_numpy(z)
            most = max(most, len(steps))
        residual = relative_residual(graph, self.alpha, scores, labels)
        return Solution.judged(scores, most, residual, self.tolerance, labels)
