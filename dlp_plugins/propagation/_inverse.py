"""Influence: columns of G = (I - alpha Wn)^(-1), from which scores, shares and refits follow.

Shapes: n nodes, m chosen points, w columns that are solved at once. Z = G Y is linear in Y, so G_ij
is what a label at point j adds to point i. G is symmetric, non-negative, and 0 between components.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dlp_plugins._threads import slices
from dlp_plugins.errors import ConvergenceError, GraphError, ParameterError
from dlp_plugins.graph import Graph
from dlp_plugins.registry import EMBEDDINGS_ALPHA
from dlp_plugins.solvers._conjugate_gradient import conjugate_gradient
from dlp_plugins.solvers._local_order import MIN_RENUMBERED_ENTRIES
from dlp_plugins.solvers.contract import column_norms

TOLERANCE = 1e-7  # |e_j - (I - alpha Wn) G_:j|, relative to |e_j| = 1
LEAST_TOLERANCE = 1e-12  # float64 reaches it up to alpha = 0.9999
MEMORY = 2**28  # bytes of working memory where no budget is given
# Bytes that a column takes for each node at the peak of a solve: solution, residual and a
# correction in float64, and nine vectors of conjugate gradient in float32.
COLUMN_BYTES = 3 * 8 + 9 * 4
# Columns at once: fewer waste loads of the graph, more leave the cache. CPU seconds for 1,000
# columns of 50,000 nodes, k = 10: 10.1 at 16, 7.6 at 32, 9.4 at 64, 8.9 at 128.
MOST_COLUMNS = 32
# Relative residual of one round of conjugate gradient in float32, which may stall a little below.
ROUND_TOLERANCE = 1e-6
MAX_ROUNDS = 8
MAX_ITERATIONS = 5_000


def influence(
    graph: Graph,
    points: Any,
    *,
    alpha: float = EMBEDDINGS_ALPHA,
    tolerance: float = TOLERANCE,
    memory: float = MEMORY,
) -> Tensor:
    """Columns of G = (I - alpha Wn)^(-1) for chosen points: [n, m] float64, on the graph's device.

    Block conjugate gradient in float32 with residuals in float64 (iterative refinement; Wilkinson,
    1963), since float32 alone stalls above 1e-7.

    Args:
        points: [m] integers, nodes of the graph; one may occur several times.
        alpha: how far labels spread, in [0, 1).
        tolerance: relative residual |e_j - (I - alpha Wn) G_:j| of every column at most.
        memory: bytes to work with beside the result; at least one column is solved at a time.

    Raises:
        GraphError: `points` are not integers of 0..n-1.
        ParameterError: alpha or tolerance out of its range.
        ConvergenceError: the tolerance was not reached.

    >>> import torch
    >>> from dlp_plugins.propagation import Propagator, influence
    >>> graph = Propagator.default(k=1).build_graph(torch.tensor([[1.0, 0], [1, 0.1], [0, 1]]))
    >>> influence(graph, [0], alpha=0.5).shape
    torch.Size([3, 1])
    """
    points = _checked(graph, points)
    found = torch.empty(graph.num_nodes, len(points), dtype=torch.float64, device=graph.device)
    for columns, block in influence_blocks(
        graph, points, alpha=alpha, tolerance=tolerance, memory=memory
    ):
        found[:, columns] = block
    return found


def influence_blocks(
    graph: Graph,
    points: Any,
    *,
    alpha: float = EMBEDDINGS_ALPHA,
    tolerance: float = TOLERANCE,
    memory: float = MEMORY,
) -> Iterator[tuple[slice, Tensor]]:
    """`influence` a few columns at a time: which of the points, and their columns [n, w] float64.

    For many points on a large graph, whose columns together would not fit into memory.
    """
    points = _checked(graph, points)
    if not 0 <= alpha < 1:
        raise ParameterError(f"alpha must be at least 0 and below 1; found {alpha}.")
    if not LEAST_TOLERANCE <= tolerance < 1:
        raise ParameterError(
            f"tolerance must be at least {LEAST_TOLERANCE:g} and below 1; found {tolerance}."
        )
    return _blocks(graph, points, alpha, tolerance, memory)


@dataclass(frozen=True)
class Among:
    """What chosen points do to each other and in all.

    values: G[points, points] [m, m] float64.
    sums: [m] float64, the sum of each one's column of G over all nodes.
    """

    values: Tensor
    sums: Tensor


def influence_among(
    graph: Graph,
    points: Any,
    *,
    alpha: float = EMBEDDINGS_ALPHA,
    tolerance: float = TOLERANCE,
    memory: float = MEMORY,
) -> Among:
    """G[points, points] and the sums of their columns, without all columns being held at once.

    Args, Raises: as `influence`.
    """
    points = _checked(graph, points)
    values = torch.empty(len(points), len(points), dtype=torch.float64, device=graph.device)
    sums = values.new_empty(len(points))
    for columns, block in influence_blocks(
        graph, points, alpha=alpha, tolerance=tolerance, memory=memory
    ):
        values[:, columns] = block[points]
        sums[columns] = block.sum(dim=0)
    return Among(values, sums)


def _checked(graph: Graph, points: Any) -> Tensor:
    """Points [m] int64 on the graph's device."""
    found = torch.as_tensor(points)
    if found.ndim != 1 or (len(found) and (found.is_floating_point() or found.is_complex())):
        raise GraphError(f"points must be [m] integers; found {list(found.shape)} {found.dtype}.")
    found = found.long().to(graph.device)
    if len(found) and (int(found.min()) < 0 or int(found.max()) >= graph.num_nodes):
        raise GraphError(
            f"points must be 0..{graph.num_nodes - 1}; found {int(found.min())}.."
            f"{int(found.max())}."
        )
    return found


def _blocks(
    graph: Graph, points: Tensor, alpha: float, tolerance: float, memory: float
) -> Iterator[tuple[slice, Tensor]]:
    n = graph.num_nodes
    width = max(1, min(MOST_COLUMNS, int(memory // (COLUMN_BYTES * n))))
    graph, points, order = in_local_order(graph, points)
    system = System(graph, alpha)
    for columns in slices(len(points), width):
        own = points[columns]
        unit = torch.zeros(n, len(own), dtype=torch.float64, device=graph.device)
        unit[own, torch.arange(len(own), device=graph.device)] = 1
        block = system.solve(unit, tolerance)
        if order is not None:
            block = torch.empty_like(block).index_copy_(0, order, block)
        yield columns, block


def in_local_order(graph: Graph, points: Tensor) -> tuple[Graph, Tensor, Tensor | None]:
    """The graph with linked nodes near each other in memory, where that pays; points in it.

    Products with the graph then find their rows in cache.

    Returns:
        Graph, points [m], and the old number of each node [n], or None where nothing changed.
    """
    n = graph.num_nodes
    if graph.device.type != "cpu" or n * len(points) < MIN_RENUMBERED_ENTRIES:
        return graph, points, None
    graph, order = graph.renumbered
    number = torch.empty_like(order)
    number[order] = torch.arange(n)
    return graph, number[points], order


class System:
    """(I - alpha Wn) X = B in float64, for the values of Wn as they are in float32."""

    def __init__(self, graph: Graph, alpha: float) -> None:
        n = graph.num_nodes
        self.graph, self.alpha = graph, alpha
        self._precise = torch.sparse_csr_tensor(
            graph.crow_indices, graph.col_indices, graph.values.double(), (n, n),
            check_invariants=False,
        )  # fmt: skip

    def residual(self, x: Tensor, b: Tensor) -> Tensor:
        """B - (I - alpha Wn) X [n, w] float64, for X in float64."""
        return (self._precise @ x).mul_(self.alpha).sub_(x).add_(b)

    @torch.no_grad()
    def solve(self, b: Tensor, tolerance: float) -> Tensor:
        """X [n, w] float64 for B [n, w] float64, each column to |b| times tolerance.

        Conjugate gradient in float32, its residual in float64, and again for what is left.

        Raises:
            ConvergenceError: the tolerance was not reached.
        """
        x = torch.zeros_like(b)
        residual, size = b, column_norms(b)
        whole = torch.where(size > 0, size, 1.0)
        left = size / whole
        for number in range(MAX_ROUNDS):
            largest = float(left.max())
            if largest <= tolerance:
                return x
            wanted = min(max(ROUND_TOLERANCE, tolerance / largest), 0.5)
            scale = torch.where(left > 0, left, 1.0) * whole  # float32 has no room for 1e-50
            step, _, rest = conjugate_gradient(
                self.graph, self.alpha, (residual / scale).float(), None, wanted, MAX_ITERATIONS
            )
            step = step.double() * scale
            x += step
            # float32 measures well enough the residual of a small correction, and a large one
            measured = number > 0 or tolerance >= ROUND_TOLERANCE
            if measured and bool((rest * left <= tolerance).all()):
                return x
            residual = self.residual(step, residual)
            left = column_norms(residual) / whole
        if float(left.max()) <= tolerance:
            return x
        raise ConvergenceError(
            f"Influence at alpha = {self.alpha}: the residual is {float(left.max()):.1e} after "
            f"{MAX_ROUNDS} rounds, above the tolerance {tolerance:g}. Lower alpha, or raise "
            "tolerance."
        )
