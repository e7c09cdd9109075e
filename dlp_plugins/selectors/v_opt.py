"""Points whose labels leave the least variance in all others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from dlp_plugins.graph import Graph
from dlp_plugins.propagation import influence_blocks
from dlp_plugins.registry import selectors
from dlp_plugins.selectors.contract import Pool, Selector
from dlp_plugins.solvers.contract import Alpha, Tolerance, column_norms

MEMORY = 2**30  # bytes of the candidates' columns of G; fewer candidates where they take more


@selectors.register("v_opt")
@dataclass(frozen=True)
class VOpt(Selector):
    """V-optimality: argmax |G_:k|^2 / (s + G_kk), after each of which G -= G_:k G_k: / (s + G_kk).

    Ji and Han, 2012, with G = (I - alpha Wn)^-1 as the covariance of a Gaussian field on the graph:
    the label of k lowers the sum of all variances by that much, s being a label's own variance.
    Labelled points are taken out of G first. No randomness up to `candidates` points.

    Takes a solve and n numbers for each candidate and each labelled point.
    """

    alpha: Alpha = 0.9
    noise: Annotated[float, Field(gt=0, description="s, the variance of a label")] = 0.01
    tolerance: Tolerance = 1e-4
    candidates: Annotated[
        int, Field(ge=1, description="points to choose among; of more, so many at random")
    ] = 1000
    seed: Annotated[int, Field(ge=0, description="another seed gives other candidates")] = 0

    def select(self, pool: Pool, count: int) -> Tensor:
        assert pool.graph is not None
        points = self._candidates(pool, count)
        g = self._remaining(pool.graph, pool.labeled, points)
        free = torch.ones(len(points), dtype=torch.bool, device=g.device)
        chosen = []
        for _ in range(count):
            own = g[points, torch.arange(len(points), device=g.device)].clamp(min=0)
            gain = column_norms(g).square() / (self.noise + own)
            best = torch.where(free, gain, -torch.inf).argmax()
            chosen.append(points[best])
            free[best] = False
            column = g[:, best] / (self.noise + own[best]).sqrt()
            g.addr_(column, column[points], alpha=-1)
        return torch.stack(chosen).to(pool.labels.device)

    def _candidates(self, pool: Pool, count: int) -> Tensor:
        points = pool.unlabeled
        most = max(count, min(self.candidates, MEMORY // (4 * len(pool.labels))))
        if len(points) <= most:
            return points
        random = torch.Generator().manual_seed(self.seed)
        return points[torch.randperm(len(points), generator=random)[:most].to(points.device)]

    def _remaining(self, graph: Graph, labeled: Tensor, points: Tensor) -> Tensor:
        """[n, m] float32: columns of G for m points, what the labelled ones explain taken out."""
        g, known = self._columns(graph, points), self._columns(graph, labeled)
        if len(labeled):
            variance = known[labeled].double()
            variance.diagonal().add_(self.noise)
            share = torch.linalg.solve(variance, g[labeled].double())
            g.addmm_(known, share.float(), alpha=-1)
        return g

    def _columns(self, graph: Graph, points: Tensor) -> Tensor:
        """Columns of G [n, m] float32."""
        found = torch.empty(graph.num_nodes, len(points), device=graph.device)
        blocks = influence_blocks(graph, points, alpha=self.alpha, tolerance=self.tolerance)
        for columns, block in blocks:
            found[:, columns] = block
        return found
