"""The exact closed form, for small graphs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import scipy.linalg
import torch
from torch import Tensor

from dlp_plugins.graph import Graph, read_host
from dlp_plugins.registry import solvers
from dlp_plugins.solvers.contract import Alpha, Solution, Solver, relative_residual

TOLERANCE = 1e-6  # the residual that rounding the float64 answer to float32 leaves


@solvers.register("closed_form")
@dataclass(frozen=True)
class ClosedForm(Solver):
    """Z = (I - alpha Wn)^(-1) Y by a dense Cholesky factorisation in float64 (Iscen et al., eq. 4).

    Takes 8 n^2 bytes, twice that while it factorises: 6.4 GB for the largest graph it accepts. The
    factorisation runs on the CPU, whatever the device.
    """

    alpha: Alpha = 0.99
    max_nodes = 20_000
    vectors = 8

    def prepare(self, graph: Graph) -> Any:
        self.check_size(graph)
        system = -self.alpha * graph.to_scipy().astype("float64").toarray()
        system[range(graph.num_nodes), range(graph.num_nodes)] += 1.0
        return graph, scipy.linalg.cho_factor(system, overwrite_a=True, check_finite=False)

    def prepared_bytes(self, nodes: int, entries: int) -> float:
        return 2 * 8.0 * nodes**2

    def solve(self, state: Any, labels: Tensor, initial: Tensor | None = None) -> Solution:
        graph, factor = state
        z = scipy.linalg.cho_solve(factor, read_host(labels.double()), check_finite=False)
        scores = torch.from_numpy(z).to(labels.device, labels.dtype)
        residual = relative_residual(graph, self.alpha, scores, labels)
        return Solution.judged(scores, 0, residual, TOLERANCE, labels)
