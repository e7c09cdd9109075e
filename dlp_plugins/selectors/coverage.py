"""Points from which labels spread over what is not covered yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlp_plugins.propagation import influence_blocks
from dlp_plugins.registry import selectors
from dlp_plugins.selectors.contract import Pool, Selector
from dlp_plugins.solvers.contract import Alpha, Tolerance

MAX_ITERATIONS = 1_000


@selectors.register("coverage")
@dataclass(frozen=True)
class Coverage(Selector):
    """Greedy cover by diffusion on the graph: argmax of G r, then r is covered around it.

    G = (I - alpha Wn)^-1, and r [n] is what is uncovered of each point, 1 at first. The next point
    is the one from which most of r is reached, i = argmax (G r)_i; then r_j is multiplied by
    1 - G_ij / max_(k != i) G_ik, and r_i becomes 0. So points in dense regions come first, and none
    beside an earlier one; labelled points cover theirs before the first is chosen. No randomness.

    Takes two solves of one column for each point, on the CPU.
    """

    alpha: Alpha = 0.9
    tolerance: Tolerance = 1e-4

    def select(self, pool: Pool, count: int) -> Tensor:
        assert pool.graph is not None
        uncovered = self._uncovered(pool)
        wn = pool.graph.to_scipy()
        gain = self._diffuse(wn, uncovered)
        free = pool.labels.cpu().numpy() < 0
        chosen: list[int] = []
        one = np.zeros_like(uncovered)
        for _ in range(count):
            best = int(np.where(free, gain, -np.inf).argmax())
            chosen.append(best)
            free[best] = False
            one[best] = 1
            lost = uncovered * covered(self._diffuse(wn, one), best)
            one[best] = 0
            uncovered -= lost
            gain -= self._diffuse(wn, lost)
        return torch.tensor(chosen, device=pool.labels.device)

    def _uncovered(self, pool: Pool) -> np.ndarray:
        """[n] float32: what the labelled points leave uncovered of each point."""
        assert pool.graph is not None
        left, points = np.ones(len(pool.labels)), pool.labeled
        blocks = influence_blocks(pool.graph, points, alpha=self.alpha, tolerance=self.tolerance)
        for columns, block in blocks:
            for point, g in zip(points[columns].tolist(), block.T.cpu().numpy(), strict=True):
                left *= 1 - covered(g, point)
        return left.astype(np.float32)

    def _diffuse(self, wn: Any, b: np.ndarray) -> np.ndarray:
        """G b [n] by conjugate gradient. The shared one is for many columns and slower for one."""
        x, r = np.zeros_like(b), b.copy()
        p, rr = r.copy(), float(r @ r)
        goal = self.tolerance**2 * rr
        for _ in range(MAX_ITERATIONS):
            if rr <= goal:
                break
            q = p - self.alpha * (wn @ p)
            step = rr / float(p @ q)
            x += step * p
            r -= step * q
            before, rr = rr, float(r @ r)
            p = r + (rr / before) * p
        return x


def covered(g: np.ndarray, point: int) -> np.ndarray:
    """[n] in 0..1: how far a point covers every point, from its column of G [n] (overwritten)."""
    g[point] = 0
    np.maximum(g, 0, out=g)
    largest = g.max()
    if largest > 0:
        g /= largest
    g[point] = 1
    return g
