"""Which points to look at: those worth a label next, and labels that are likely wrong.

Shapes: m nodes of the graph, c classes, l labelled nodes. G = (I - alpha Wn)^-1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlp_plugins.inputs import UNLABELED
from dlp_plugins.labeling.live import Space, View
from dlp_plugins.propagation import influence_blocks
from dlp_plugins.propagation.propagator import full_precision
from dlp_plugins.selectors.contract import Pool, Selector

TOLERANCE = 1e-4  # relative residual of a column of G here: doubts to three digits
# A selector may look at every labelled point. Beyond so many, each choice would take many seconds,
# and labels have long been everywhere: then the least certain points come next.
MOST_LABELED = 1_000


@full_precision()
def choose_next(
    space: Space, view: View, selector: Selector, skipped: Tensor, count: int
) -> list[int]:
    """Points without a label that are worth one, the best first; at most `count`.

    Args:
        skipped: [s] points to which people gave no class; they are not chosen again.
    """
    nodes = space.distinct.labels(torch.where(_mask(len(view.given), skipped), 0, view.given))
    known = nodes != UNLABELED
    count = min(count, int((~known).sum()))
    if not count:
        return []
    labeled = view.nodes != UNLABELED
    uncertain = int(known.sum()) > MOST_LABELED
    if uncertain or (selector.needs_probabilities and not labeled.any()):
        return least_certain(view, ~_mask(len(view.given), skipped))[:count].tolist()
    p = view.probabilities[:, view.probabilities.any(dim=0)] if labeled.any() else None
    chosen = selector.select(Pool(space.descriptors, nodes, space.graph, p), count)
    return space.distinct.points[chosen.cpu()].tolist()


def least_certain(view: View, allowed: Tensor) -> Tensor:
    """Points without a label, the least certain first.

    Args:
        allowed: [n] bool.
    """
    points = (allowed & (view.given == UNLABELED)).nonzero().squeeze(1)
    return points[view.certainty[points].argsort(stable=True)]


@dataclass(frozen=True)
class Suspicion:
    """What the other labels say of one.

    doubt: 0 to 1: of its class and the best other one, the share of the other, had the point no
        label; above 0.5 the other is more likely.
    suggested: the best other class.
    """

    point: int
    doubt: float
    suggested: int


class Audit:
    """Leave-one-out of every label, with what the graph alone decides kept between calls.

    z^(-i)_ic = (sums_ic - [y_i = c] G_ii) / (n_c - [y_i = c]), the scores of a refit without label
    i (Wn knows no labels), then class mass. A label that is the only one of its class has none.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self._own: dict[int, float] = {}  # G_ii of a node

    @full_precision()
    def __call__(self, view: View) -> list[Suspicion]:
        """All labels that others speak about, the most doubtful first."""
        nodes = (view.nodes != UNLABELED).nonzero().squeeze(1)
        if not len(nodes):
            return []
        y, doubt, suggested = self._leave_one_out(view, nodes)
        node_of = self.space.distinct.group
        found = []
        place = torch.full((len(view.nodes),), -1)
        place[nodes] = torch.arange(len(nodes))
        for point in (view.given != UNLABELED).nonzero().squeeze(1).tolist():
            i = int(place[point if node_of is None else node_of[point]])
            if int(view.given[point]) != int(y[i]):  # a copy of it has another label
                found.append(Suspicion(point, 1.0, int(y[i])))
            elif doubt[i] == doubt[i]:
                found.append(Suspicion(point, float(doubt[i]), int(suggested[i])))
        return sorted(found, key=lambda s: -s.doubt)

    def _leave_one_out(self, view: View, nodes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Label, doubt (NaN for the only one of its class) and suggested class of nodes [l]."""
        space, c = self.space, view.sums.shape[1]
        alpha = getattr(space.propagator.solver, "alpha", 0.0)
        own = self._diagonal(nodes, alpha)
        y = view.nodes[nodes]
        mass = torch.nn.functional.one_hot(y, c).double()
        counts = mass.sum(dim=0) - mass
        scores = (view.sums[nodes].double() - mass * own[:, None]).clamp(min=0)
        scores = torch.where(counts > 0, scores / counts.clamp(min=1), 0.0)
        # the classes' sums over unlabelled nodes, node i among them, without what label i gave
        unlabeled = view.nodes == UNLABELED
        lost = space.propagator.solve(
            space.propagator.solver.prepare(space.graph), unlabeled.float()[:, None]
        ).scores[nodes]
        totals = view.sums[unlabeled].double().sum(dim=0) - mass * lost.double()
        totals = (totals / counts.clamp(min=1)).clamp(min=0) + scores
        shares = torch.where(totals > 0, scores / totals, 0.0)
        p = shares / shares.sum(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
        known = (mass * counts).sum(dim=1) > 0
        own_share = (mass * p).sum(dim=1)
        best, suggested = (p - mass).max(dim=1)  # its own class is out of the question
        doubt = torch.where(known & p.any(dim=1), best / (best + own_share), torch.nan)
        return y, doubt, suggested

    def _diagonal(self, nodes: Tensor, alpha: float) -> Tensor:
        """G_ii [l] float64; columns are solved for nodes that had no label before."""
        new = [i for i in nodes.tolist() if i not in self._own]
        for part, block in influence_blocks(
            self.space.graph, new, alpha=alpha, tolerance=TOLERANCE
        ):
            own = block[new[part], torch.arange(block.shape[1])]
            self._own.update(zip(new[part], own.tolist(), strict=True))
        return torch.tensor([self._own[i] for i in nodes.tolist()], dtype=torch.float64)


def _mask(n: int, points: Tensor) -> Tensor:
    found = torch.zeros(n, dtype=torch.bool)
    found[points] = True
    return found
