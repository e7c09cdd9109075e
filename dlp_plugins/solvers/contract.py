"""What a solver is: a graph and a label matrix in, scores and a convergence record out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from dlp_plugins.errors import GraphError
from dlp_plugins.graph import Graph

Alpha = Annotated[
    float, Field(ge=0, lt=1, description="how far labels spread; 0 leaves them where they are")
]
MaxIterations = Annotated[int, Field(ge=1, description="iterations at most")]
Tolerance = Annotated[float, Field(gt=0, lt=1, description="relative residual that is enough")]


@dataclass(frozen=True)
class Solution:
    """Scores and how well they solve the system.

    scores: [n, c] float32, on the graph's device.
    iterations: products with the graph that were needed (0 for a direct solver).
    residual: [c] relative residual |y - (I - alpha Wn) z| / |y| of each class; 0 for an empty class.
    converged: every residual is within the tolerance; judged by residuals, never by iterations.
    """

    scores: Tensor
    iterations: int
    residual: Tensor
    converged: bool


class Solver(ABC):
    """Solves (I - alpha Wn) Z = Y, or another spreading of Y over the graph (say which).

    Preparation on the graph is apart from the solve, so that one factorisation, eigenbasis or
    preconditioner serves all classes: `solve(prepare(graph), labels)`. Most solvers need none.
    """

    max_nodes: int | None = None  # a solver that is only fit for small graphs says so

    def prepare(self, graph: Graph) -> Any:
        """What every later solve on this graph needs; by default the graph itself."""
        return graph

    @abstractmethod
    def solve(self, state: Any, labels: Tensor, initial: Tensor | None = None) -> Solution:
        """Spread the label matrix.

        Args:
            state: what `prepare` returned.
            labels: Y [n, c] float32; a column of zeros is a class without a labelled example.
            initial: [n, c] a first guess, for example the last epoch's scores.

        Returns:
            Scores Z with one column a class. A node that no label reaches has a row of zeros.
        """

    def oracle(self, graph: Graph, labels: Tensor) -> Tensor:
        """The same answer, dense and in float64, for tests on small graphs. [n, c] float64.

        By default the closed form (I - alpha Wn)^(-1) Y. A solver of another system overrides it.
        """
        wn = torch.from_numpy(graph.to_scipy().toarray().astype(np.float64))
        alpha: float = self.alpha  # type: ignore[attr-defined]
        system = torch.eye(graph.num_nodes, dtype=torch.float64) - alpha * wn
        return torch.linalg.solve(system, labels.double().cpu())

    def check_size(self, graph: Graph) -> None:
        """Raise GraphError where the graph is larger than this solver is fit for."""
        if self.max_nodes is not None and graph.num_nodes > self.max_nodes:
            raise GraphError(
                f"{type(self).__name__} takes at most {self.max_nodes:,} nodes; this graph has "
                f"{graph.num_nodes:,}. Use solver 'cg', which solves the same system."
            )


def relative_residual(graph: Graph, alpha: float, scores: Tensor, labels: Tensor) -> Tensor:
    """|y - (I - alpha Wn) z| / |y| for each class: [c]; 0 for a class without labels."""
    residual = labels - scores + alpha * graph.matmul(scores)
    size = labels.norm(dim=0)
    return torch.where(size > 0, residual.norm(dim=0) / size, torch.zeros_like(size))
