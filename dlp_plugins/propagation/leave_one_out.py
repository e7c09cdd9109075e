"""What the graph makes of every labelled point without its own label.

Shapes: n nodes, c classes, m labels. G = (I - alpha Wn)^(-1), Z = G Y. Wn knows no labels, so a
refit without label i is Z less one column of G, and of that column only G_ii is needed:

    z^(-i)_ic = sum over labels j != i of class c of w_j G_ij / sum over the same of w_j
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from dlp_plugins._threads import slices
from dlp_plugins.graph import Graph
from dlp_plugins.inputs import UNLABELED
from dlp_plugins.propagation._inverse import (
    COLUMN_BYTES,
    MAX_ITERATIONS,
    MEMORY,
    MOST_COLUMNS,
    System,
    in_local_order,
)
from dlp_plugins.registry import EMBEDDINGS_ALPHA
from dlp_plugins.solvers._conjugate_gradient import conjugate_gradient

# Error of G_ii = x_i + x.r + r.G r, of which the last term is left out: x approximates column i, r
# is its residual. It is at most |r|^2 / (1 - alpha), so half the iterations of a column are enough.
# A score that is a difference of no more than this is rounding.
DIAGONAL_TOLERANCE = 1e-9
SCORE_TOLERANCE = 1e-9  # relative residual of the few columns of Z
STRONGEST = 64  # labels kept for each label, that add most to its point


@dataclass(frozen=True)
class LeftOut:
    """Labelled points, s of them, each as if its own label were not known.

    scores: z^(-i) [s, c] float64; 0 in the class of a label that is the only one of its class.
    probabilities: [s, c] float64, class mass with equal shares, the masses those without label i;
        rows sum to 1, or are 0 where no other label reaches the point.
    """

    scores: Tensor
    probabilities: Tensor


@dataclass(frozen=True)
class LeaveOneOut:
    """What is needed of the graph to leave out any one of s labels of m; the labels may change.

    nodes: [m] int64, the node that each label is of; several may be of one.
    which: [s] int64, the labels that are left out, as positions in `nodes`.
    own: [s] float64, G_ii.
    strongest: [s, t] int64, the other labels that add most to each one's point, as positions in
        `nodes`, the most first; -1 where there are no more in its component.
    """

    nodes: Tensor
    which: Tensor
    own: Tensor
    strongest: Tensor
    _system: System
    _columns: int
    _tolerance: float

    @classmethod
    def of(
        cls,
        graph: Graph,
        nodes: Tensor,
        *,
        which: Tensor | None = None,
        alpha: float = EMBEDDINGS_ALPHA,
        tolerance: float = DIAGONAL_TOLERANCE,
        memory: float = MEMORY,
    ) -> Self:
        """Of labels at nodes [m] of a graph.

        Args:
            which: [s] int64 positions in `nodes` of the labels to leave out; by default all.
            tolerance: error of G_ii.
            memory: bytes to work with; at least one column of G is solved at a time.
        """
        n, m = graph.num_nodes, len(nodes)
        which = torch.arange(m) if which is None else which
        width = max(1, min(MOST_COLUMNS, int(memory // (COLUMN_BYTES * n))))
        graph, at, _ = in_local_order(graph, nodes.to(graph.device))
        own, strongest = [], []
        system, enough = System(graph, alpha), min(0.1, math.sqrt(tolerance * (1 - alpha)))
        for part in slices(len(which), width):
            labels = which[part].to(graph.device)
            w = torch.arange(len(labels), device=graph.device)
            unit = torch.zeros(n, len(w), device=graph.device)
            unit[at[labels], w] = 1
            with torch.no_grad():
                x, *_ = conjugate_gradient(graph, alpha, unit, None, enough, MAX_ITERATIONS)
            precise = x.double()
            correction = (precise * system.residual(precise, unit)).sum(dim=0)
            own.append((precise[at[labels], w] + correction).cpu())
            among = x[at].T  # [w, m]
            among[w, labels] = -torch.inf
            strength, positions = among.topk(min(STRONGEST, m - 1), dim=1)
            strongest.append(torch.where(strength > 0, positions, UNLABELED).cpu())
        return cls(at.cpu(), which, torch.cat(own), torch.cat(strongest), system, width, tolerance)

    def __call__(self, labels: Tensor, num_classes: int, weights: Tensor | None = None) -> LeftOut:
        """The points left out, for labels [m] int64.

        Args:
            weights: [m] at least 0, what each label counts; by default 1.
        """
        w = torch.ones(len(labels)) if weights is None else weights
        mass = torch.nn.functional.one_hot(labels.long(), num_classes) * w.double().cpu()[:, None]
        sums, lost = self._sums(mass)
        mine, own = mass[self.which], mass[self.which] * self.own[:, None]
        counts = mass.sum(dim=0) - mine  # [s, c]: of the other labels
        present = (counts > 0) & (sums - own > 2 * self._tolerance * own)
        scores = torch.where(present, (sums - own) / counts, 0.0)
        # Class masses over the unlabelled nodes, to which i's belongs if no other label is there.
        totals = mass.T @ lost - mine * lost[self.which, None]
        totals = torch.where(counts > 0, totals / counts, 0.0)
        alone = torch.bincount(self.nodes)[self.nodes[self.which]] == 1
        totals += torch.where(alone[:, None], scores, 0.0)
        shares = torch.where(totals > 0, scores / totals, 0.0)
        total = shares.sum(dim=1, keepdim=True)
        return LeftOut(scores, torch.where(total > 0, shares / total, 0.0))

    def _sums(self, mass: Tensor) -> tuple[Tensor, Tensor]:
        """G Y at the labels left out [s, c], and what each label adds to unlabelled nodes [m]."""
        graph = self._system.graph
        at, n, c = self.nodes.to(graph.device), graph.num_nodes, mass.shape[1]
        left_out = at[self.which.to(graph.device)]
        sums = torch.empty(len(left_out), c, dtype=torch.float64)
        for columns in slices(c, self._columns):
            y = mass[:, columns].to(graph.device)
            b = y.new_zeros(n, y.shape[1]).index_add_(0, at, y)
            sums[:, columns] = self._system.solve(b, SCORE_TOLERANCE)[left_out].cpu()
        unlabeled = torch.ones(n, 1, dtype=torch.float64, device=graph.device)
        unlabeled[at] = 0
        return sums, self._system.solve(unlabeled, SCORE_TOLERANCE)[at, 0].cpu()
