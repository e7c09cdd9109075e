"""What a solver is: a graph and a label matrix in, scores and a convergence record out.

Shapes: n nodes, c classes. To write a solver, subclass `Solver`, register it, and pass its name to
`dlp_plugins.testing.check_solver`.

On a GPU reading a value waits for the device: read by `dlp_plugins.graph.read_host` alone, every
`checks(device)` iterations, and let no shape depend on values (boolean masks, `nonzero`).
tests/fake_cuda checks it of the solvers here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from dlp_plugins.errors import GraphError
from dlp_plugins.graph import ALL, Graph, read_host
from dlp_plugins.solvers._rows import RowBlocks

Alpha = Annotated[
    float, Field(ge=0, lt=1, description="how far labels spread; 0 leaves them where they are")
]
MaxIterations = Annotated[int, Field(ge=1, description="iterations at most")]
Tolerance = Annotated[float, Field(gt=0, lt=1, description="relative residual that is enough")]


# Storing z in float32 changes the residual by about 0.2 eps |z|, and computing it by 1.2 eps |z|.
# With alpha near 1 scores are many times larger than labels, so this may exceed the tolerance.
STOP_ROUNDINGS = 6  # of z, at which to stop iterating; power and chebyshev reach 4 at alpha 0.99
LIMIT_ROUNDINGS = 8  # of z, that may be missing where precision is the limit

Norms = Callable[[Tensor], Tensor]
"""Euclidean norms [c] of the columns of a matrix [n, c], of which not all rows need be here."""


@dataclass(frozen=True)
class Solution:
    """Scores and how well they solve the system.

    scores: [n, c] float32, on the graph's device.
    iterations: products with the graph that a class needed (0 for a direct solver).
    residual: [c] relative residual |y - (I - alpha Wn) z| / |y| of each class, or what the solver's
        docstring says it measures; 0 for an empty one.
    converged: every residual is within the tolerance; judged by residuals, never by iterations.
    limited_by_precision: not converged, but only by the rounding of float32 scores: more
        iterations would gain little or nothing.
    """

    scores: Tensor
    iterations: int
    residual: Tensor
    converged: bool
    limited_by_precision: bool = False

    @classmethod
    def judged(
        cls,
        scores: Tensor,
        iterations: int,
        residual: Tensor,
        tolerance: float,
        labels: Tensor,
        norms: Norms | None = None,
    ) -> Solution:
        """A solution with `converged` and `limited_by_precision` as its residuals show.

        labels: [n, c], the right-hand side that the residuals are relative to.
        norms: of the columns of such matrices, by default of all their rows.
        """
        norms = norms or column_norms
        converged = all_true(residual <= tolerance)
        if converged:
            return cls(scores, iterations, residual, True)
        missing = (residual - tolerance) * norms(labels)
        limited = all_true(missing <= LIMIT_ROUNDINGS * rounding(scores, norms))
        return cls(scores, iterations, residual, False, limited)


CHECK_EVERY = 5  # iterations from one look at the residuals to the next, where a look costs


class Operator(Protocol):
    """Anything that multiplies rows of Wn [n, n] with x [n, c]: a `Graph`, or a matrix like it.

    components: [n] int64, the number of each node's connected component.
    """

    @property
    def components(self) -> Tensor: ...

    def matmul(self, x: Tensor, rows: slice = ALL) -> Tensor: ...


class Solver(ABC):
    """Solves (I - alpha Wn) Z = Y, or spreads Y in another way, stated in its docstring.

    Preparation for a graph is separate from the solve, so that one factorisation, eigenbasis or
    preconditioner serves all classes: `solve(prepare(graph), labels)`. Most solvers need none.

    Attributes:
        max_nodes: the largest graph it takes; None for no limit.
        approximate: it does not reach the exact answer however long it runs; its residual measures
            how far off it is.
        columnwise: a class can be solved without the others, so that memory can be bounded.
        vectors: float32 vectors of n numbers that one class takes at the peak of a solve, labels
            and scores included.
    """

    max_nodes: int | None = None
    approximate: bool = False
    columnwise: bool = True
    vectors: int = 8

    def prepare(self, graph: Graph) -> Any:
        """What every later solve on this graph needs; by default the graph itself."""
        return graph

    def prepared_bytes(self, nodes: int, entries: int) -> float:
        """Bytes that `prepare` takes at its peak besides a graph of so many nodes and entries."""
        return 0.0

    def with_shares(self, shares: Tensor | None) -> Self:
        """This solver for classes of known size; by default as it is, without regard to sizes.

        Args:
            shares: pi [c] float32, sum 1: share of each class among the unlabelled points. None
                where they are not known, and are to be estimated from the scores.

        Raises:
            ParameterError: it needs the sizes, and they are not known.
        """
        return self

    @abstractmethod
    def solve(self, state: Any, labels: Tensor, initial: Tensor | None = None) -> Solution:
        """Spread the label matrix.

        Args:
            state: what `prepare` returned.
            labels: Y [n, c] float32; a column of zeros is a class without a labelled example.
            initial: [n, c] a first guess, for example the last epoch's scores.

        Returns:
            Scores Z, a column per class. A node that no label reaches has a row of zeros.
        """

    def system(self, graph: Graph, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The system A Z = B that `Solution.residual` is about: dense, float64, for small graphs.

        By default A = I - alpha Wn [n, n] and B = Y [n, c]; a solver of another system overrides
        this.
        """
        wn = torch.from_numpy(graph.to_scipy().toarray().astype(np.float64))
        alpha: float = self.alpha  # type: ignore[attr-defined]
        return torch.eye(graph.num_nodes, dtype=torch.float64) - alpha * wn, labels.double().cpu()

    def oracle(self, graph: Graph, labels: Tensor) -> Tensor:
        """The exact answer Z = A^(-1) B, dense, for tests on small graphs. [n, c] float64."""
        return torch.linalg.solve(*self.system(graph, labels))

    def residual(self, graph: Graph, labels: Tensor, scores: Tensor) -> Tensor:
        """What `Solution.residual` must be for these scores: [c] float64, dense, for small graphs.

        By default |b - A z| / |b| of `system`. A solver that is not about a linear system overrides
        this and `oracle`, and says in its docstring what its residual measures.
        """
        a, b = self.system(graph, labels)
        size = b.norm(dim=0)
        return torch.where(size == 0, 0.0, (b - a @ scores.double().cpu()).norm(dim=0) / size)

    def check_size(self, graph: Graph) -> None:
        """Raise GraphError if the graph is larger than this solver takes."""
        if self.max_nodes is not None and graph.num_nodes > self.max_nodes:
            raise GraphError(
                f"{type(self).__name__} takes at most {self.max_nodes:,} nodes; this graph has "
                f"{graph.num_nodes:,}. Use solver 'cg', which solves the same system."
            )


def column_norms(x: Tensor) -> Tensor:
    """[c] Euclidean norms of the columns of x [n, c]; ten times as fast on a CPU as `x.norm`."""
    with RowBlocks(x) as blocks:
        return blocks.sum(lambda rows: x[rows].square().sum(dim=0)).sqrt()


def relative_residual(graph: Operator, alpha: float, scores: Tensor, labels: Tensor) -> Tensor:
    """|y - (I - alpha Wn) z| / |y| for each class: [c]; 0 for a class without labels."""
    size = column_norms(labels)
    return torch.where(size == 0, 0.0, residual_norms(graph, alpha, scores, labels) / size)


def residual_norms(graph: Operator, alpha: float, scores: Tensor, labels: Tensor) -> Tensor:
    """|y - (I - alpha Wn) z| for each class: [c]."""

    def squares(rows: slice) -> Tensor:
        residual = graph.matmul(scores, rows).mul_(alpha).sub_(scores[rows]).add_(labels[rows])
        return residual.square().sum(dim=0)

    with RowBlocks(labels) as blocks:
        return blocks.sum(squares).sqrt()


def goal(tolerance: float, scores: Tensor, labels: Tensor, norms: Norms = column_norms) -> Tensor:
    """The residual |y - (I - alpha Wn) z| of each class [c] at which to stop iterating.

    `tolerance` times |y|, or the rounding of float32 if that is more.
    """
    return torch.maximum(tolerance * norms(labels), STOP_ROUNDINGS * rounding(scores, norms))


def rounding(scores: Tensor, norms: Norms = column_norms) -> Tensor:
    """eps |z| of each class [c]: one rounding of all its scores."""
    return torch.finfo(scores.dtype).eps * norms(scores)


def usable_guess(graph: Operator, labels: Tensor, initial: Tensor) -> Tensor:
    """`initial` with zeros where the answer is 0: classes without a label in a node's component.

    A solver would bring those only near 0, and a row that no label reaches would count as reached.
    """
    component, count = components_on(graph, labels.device)
    reach = labels.new_zeros(count, labels.shape[1]).index_add_(0, component, labels)
    return torch.where((reach > 0)[component], initial, 0.0)


def components_on(graph: Operator, device: torch.device) -> tuple[Tensor, int]:
    """The number of each node's component [n] on a device, and how many components there are."""
    component = graph.components
    return component.to(device), int(component.max()) + 1


def all_true(condition: Tensor) -> bool:
    """Whether a condition [c] holds for every class; waits for the device."""
    return bool(read_host(condition).all())


def checks(device: torch.device) -> int:
    """Iterations from one look at the residuals to the next.

    On a GPU a look waits for the device, which a needless iteration or two do not cost.
    """
    return 1 if device.type == "cpu" else CHECK_EVERY
