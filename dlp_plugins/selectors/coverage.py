"""Points from which labels spread over what is not covered yet."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlp_plugins.graph import Graph
from dlp_plugins.registry import selectors
from dlp_plugins.selectors.contract import Pool, Selector
from dlp_plugins.solvers._conjugate_gradient import iterate
from dlp_plugins.solvers.contract import Alpha, Tolerance, column_norms

MAX_ITERATIONS = 1_000
LABELED_AT_ONCE = 32  # labelled points whose columns of G are solved together


@selectors.register("coverage")
@dataclass(frozen=True)
class Coverage(Selector):
    """Greedy cover by diffusion on the graph: argmax of G r, then r is covered around it.

    G = (I - alpha Wn)^-1, and r [n] is what is uncovered of each point, 1 at first. The next point
    is the one from which most of r is reached, i = argmax (G r)_i; then r_j is multiplied by
    1 - G_ij / max_(k != i) G_ik, and r_i becomes 0. So points in dense regions come first, and none
    beside an earlier one; labelled points cover theirs before the first is chosen. No randomness.

    Takes two solves of one column for each point.
    """

    alpha: Alpha = 0.9
    tolerance: Tolerance = 1e-4

    def select(self, pool: Pool, count: int) -> Tensor:
        assert pool.graph is not None
        graph = pool.graph
        uncovered = torch.ones(graph.num_nodes, 1, device=graph.device)
        for points in pool.labeled.split(LABELED_AT_ONCE):
            uncovered *= (1 - self._covered(graph, points)).prod(dim=1, keepdim=True)
        gain = self._diffuse(graph, uncovered)
        free = pool.labels < 0
        chosen: list[int] = []
        for _ in range(count):
            best = torch.where(free, gain[:, 0], -torch.inf).argmax()[None]
            chosen.append(int(best))
            free[best] = False
            lost = uncovered * self._covered(graph, best)
            uncovered -= lost
            gain -= self._diffuse(graph, lost)
        return torch.tensor(chosen, device=pool.labels.device)

    def _covered(self, graph: Graph, points: Tensor) -> Tensor:
        """[n, m] in 0..1: how far each of m points covers every point."""
        column = torch.arange(len(points), device=graph.device)
        one = torch.zeros(graph.num_nodes, len(points), device=graph.device)
        one[points, column] = 1
        g = self._diffuse(graph, one).clamp_(min=0)
        g[points, column] = 0
        largest = g.amax(dim=0)
        g /= torch.where(largest > 0, largest, 1.0)
        g[points, column] = 1
        return g

    def _diffuse(self, graph: Graph, b: Tensor) -> Tensor:
        """G b [n, m]."""
        goal = self.tolerance * column_norms(b)
        return iterate(graph, self.alpha, b, None, goal, MAX_ITERATIONS)[0]
