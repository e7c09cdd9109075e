"""Solving with linked nodes near each other in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from dlp_plugins.graph import Graph
from dlp_plugins.solvers.contract import Solution

# Entries of Y from which renumbering the nodes saves more time in the products of a solve than it
# takes (docs/performance.md, "Solve").
MIN_RENUMBERED_ENTRIES = 2**21


def in_local_order(solve: Callable[..., Solution]) -> Callable[..., Solution]:
    """Run a solver's `solve` on `Graph.renumbered` where that pays: large, and on a CPU."""

    @wraps(solve)
    def solve_renumbered(
        self: Any, state: Any, labels: Tensor, initial: Tensor | None = None
    ) -> Solution:
        large = labels.device.type == "cpu" and labels.numel() >= MIN_RENUMBERED_ENTRIES
        if not (large and isinstance(state, Graph)) or state.in_local_order:
            return solve(self, state, labels, initial)
        graph, order = state.renumbered
        guess = None if initial is None else initial[order]
        found = solve(self, graph, labels[order], guess)
        scores = torch.empty_like(found.scores).index_copy_(0, order, found.scores)
        return replace(found, scores=scores)

    return solve_renumbered
