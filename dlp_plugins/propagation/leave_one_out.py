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
    """Each labelled point as if its own label were not known.

    scores: z^(-i) [m, c] float64; 0 in the class of a label that is the only one of its class.
    probabilities: [m, c] float64, class mass with equal shares, the masses those without label i;
        rows sum to 1, or are 0 where no other label reaches the point.
    """

    scores: Tensor
    probabilities: Tensor


@dataclass(frozen=True)
class LeaveOneOut:
    """What is needed of the graph to leave out any one of m labels; the labels may change.

    nodes: [m] int64, the node that each label is of; several may be of one.
    own: [m] float64, G_ii.
    strongest: [m, s] int64, the other labels that add most to each one's point, the most first; -1
        where there are no more in its component.
    strength: [m, s] float32, their G_ij.
    """

    nodes: Tensor
    own: Tensor
    strongest: Tensor
    strength: Tensor
    _system: System
    _columns: int

    @classmethod
    def of(
        cls,
        graph: Graph,
        nodes: Tensor,
        *,
        alpha: float = EMBEDDINGS_ALPHA,
        memory: float = MEMORY,
    ) -> Self:
        """Of labels at nodes [m] of a graph.

        Args:
            memory: bytes to work with; at least one column of G is solved at a time.
        """
        n, m = graph.num_nodes, len(nodes)
        width = max(1, min(MOST_COLUMNS, int(memory // (COLUMN_BYTES * n))))
        graph, at, _ = in_local_order(graph, nodes.to(graph.device))
        kept = min(STRONGEST, m - 1)
        own = torch.empty(m, dtype=torch.float64)
        strongest, strength = torch.empty(m, kept, dtype=torch.int64), torch.empty(m, kept)
        system = System(graph, alpha)
        tolerance = min(0.1, math.sqrt(DIAGONAL_TOLERANCE * (1 - alpha)))
        for part in slices(m, width):
            w = torch.arange(part.stop - part.start, device=graph.device)
            unit = torch.zeros(n, len(w), device=graph.device)
            unit[at[part], w] = 1
            with torch.no_grad():
                x, *_ = conjugate_gradient(graph, alpha, unit, None, tolerance, MAX_ITERATIONS)
            precise = x.double()
            correction = (precise * system.residual(precise, unit)).sum(dim=0)
            own[part] = (precise[at[part], w] + correction).cpu()
            among = x[at].T  # [w, m]
            among[w, w + part.start] = -torch.inf
            strength[part], strongest[part] = (v.cpu() for v in among.topk(kept, dim=1))
        strongest[strength <= 0] = UNLABELED
        return cls(at.cpu(), own, strongest, strength.clamp(min=0), system, width)

    def __call__(self, labels: Tensor, num_classes: int, weights: Tensor | None = None) -> LeftOut:
        """The points without their own labels [m] int64.

        Args:
            weights: [m] at least 0, what each label counts; by default 1.
        """
        device, m = self._system.graph.device, len(self.nodes)
        w = torch.ones(m) if weights is None else weights
        mass = torch.nn.functional.one_hot(labels.long(), num_classes) * w.double().cpu()[:, None]
        sums, lost = self._sums(mass, device)
        own = mass * self.own[:, None]
        counts = mass.sum(dim=0) - mass  # [m, c]: of the other labels
        present = (counts > 0) & (sums - own > 2 * DIAGONAL_TOLERANCE * own)
        scores = torch.where(present, (sums - own) / counts, 0.0)
        # Class masses over the unlabelled nodes, to which i's belongs if no other label is there.
        totals = mass.T @ lost - mass * lost[:, None]
        alone = torch.bincount(self.nodes)[self.nodes] == 1
        totals = torch.where(counts > 0, totals / counts, 0.0) + torch.where(
            alone[:, None], scores, 0.0
        )
        shares = torch.where(totals > 0, scores / totals, 0.0)
        total = shares.sum(dim=1, keepdim=True)
        return LeftOut(scores, torch.where(total > 0, shares / total, 0.0))

    def _sums(self, mass: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """G Y at the labelled nodes [m, c], and what each label gives all unlabelled nodes [m]."""
        n, c = self._system.graph.num_nodes, mass.shape[1]
        at = self.nodes.to(device)
        sums = torch.empty(len(mass), c, dtype=torch.float64)
        for columns in slices(c, self._columns):
            b = torch.zeros(n, columns.stop - columns.start, dtype=torch.float64, device=device)
            b.index_add_(0, at, mass[:, columns].to(device))
            sums[:, columns] = self._system.solve(b, SCORE_TOLERANCE)[at].cpu()
        unlabeled = torch.ones(n, 1, dtype=torch.float64, device=device)
        unlabeled[at] = 0
        return sums, self._system.solve(unlabeled, SCORE_TOLERANCE)[at, 0].cpu()
