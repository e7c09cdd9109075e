"""A truncated eigenbasis: once it is computed, a class costs two thin products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from scipy.sparse.linalg import ArpackNoConvergence, eigsh
from torch import Tensor

from dlp_plugins.graph import Graph
from dlp_plugins.registry import solvers
from dlp_plugins.solvers.contract import (
    Alpha,
    Solution,
    Solver,
    Tolerance,
    relative_residual,
)


@solvers.register("spectral")
@dataclass(frozen=True)
class Spectral(Solver):
    """z = y + U (1 / (1 - alpha lambda) - 1) U^T y over the largest eigenvalues lambda of Wn.

    Eigenvalues beyond `rank` count as 0, so that the part of Y along their vectors does not spread.
    No iteration removes the error of that truncation; `residual` measures it, and `converged`
    compares it with `tolerance`. A few labels have small parts along very many eigenvectors: expect
    it not to converge, and its labels to differ from the exact ones (figures in
    docs/performance.md). Fergus, Weiss and Torralba, NIPS 2009, truncate likewise.
    """

    alpha: Alpha = 0.99
    rank: Annotated[int, Field(ge=1, description="eigenvectors kept")] = 100
    tolerance: Tolerance = 0.05
    approximate = True
    vectors = 5

    def prepare(self, graph: Graph) -> Any:
        values, vectors = _largest(graph, self.rank)
        gain = 1 / (1 - self.alpha * values) - 1

        def move(a: np.ndarray) -> Tensor:
            return torch.from_numpy(a.astype(np.float32)).to(graph.device)

        return graph, move(gain), move(vectors)

    def prepared_bytes(self, nodes: int, entries: int) -> float:
        # ARPACK's 2 rank + 1 vectors and its answer in float64, the basis in float32, the matrix
        return nodes * (8.0 * (2 * self.rank + 1) + 12 * self.rank) + 12 * entries

    def solve(self, state: Any, labels: Tensor, initial: Tensor | None = None) -> Solution:
        graph, gain, basis = state
        scores = torch.addmm(labels, basis, gain[:, None] * (basis.T @ labels))
        residual = relative_residual(graph, self.alpha, scores, labels)
        return Solution.judged(scores, 0, residual, self.tolerance, labels)


def _largest(graph: Graph, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """The algebraically largest eigenvalues [m] of Wn and their vectors [n, m], in float64."""
    matrix = graph.to_scipy().astype(np.float64)
    n = graph.num_nodes
    if rank >= n - 1:
        return np.linalg.eigh(matrix.toarray())
    start = np.random.default_rng(0).standard_normal(n)
    try:
        return eigsh(matrix, k=rank, which="LA", v0=start, tol=1e-5)
    except ArpackNoConvergence as error:
        # Those that did converge are a smaller basis; the residual shows what is missing.
        return error.eigenvalues, error.eigenvectors
