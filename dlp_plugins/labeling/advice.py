"""Which points to look at: those worth a label next, and labels that are likely wrong.

Shapes: n points.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlp_plugins.embeddings.audit import audit_labels
from dlp_plugins.inputs import UNLABELED
from dlp_plugins.labeling.live import Space, View
from dlp_plugins.propagation.propagator import full_precision
from dlp_plugins.selectors.contract import Pool, Selector

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

    doubt: estimated probability that the label is wrong.
    suggested: the class that they make most likely; the given one where that is it.
    """

    point: int
    doubt: float
    suggested: int


def audit(space: Space, view: View) -> list[Suspicion]:
    """All labels that others speak about (`audit_labels`), the most doubtful first."""
    counts = torch.bincount(view.nodes[view.nodes >= 0], minlength=view.sums.shape[1])
    present = counts.nonzero().squeeze(1)
    if len(present) < 2 or int(counts.max()) < 2:
        return []
    number = torch.full((len(counts) + 1,), UNLABELED)
    number[present] = torch.arange(len(present))
    labels = number[view.given]  # -1 is the last
    found = audit_labels(
        space.propagator, space.descriptors, space.graph, labels, len(present), space.distinct
    )
    return [
        Suspicion(int(found.points[i]), float(found.doubt[i]), int(present[found.suggested[i]]))
        for i in found.order
        if found.suggested[i] != UNLABELED
    ]


def _mask(n: int, points: Tensor) -> Tensor:
    found = torch.zeros(n, dtype=torch.bool)
    found[points] = True
    return found
