"""Which given labels are likely wrong: leave-one-out on the graph, and labels hidden in turn.

Shapes: n points, c classes, m labels. A label's doubt comes from r_i, what the rest says of its
point: r_ij in proportion to the square root of (p_ij + 0.001) (q_ij + 0.001), p the class-mass
probabilities without label i (`propagation.leave_one_out`), q the refined ones with a fifth of the
labels hidden at once, i among them. Together they find wrong labels better than either, or than a
margin (docs/audit.md); a product would count what they have in common twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from dlp_plugins.embeddings._label_noise import LabelNoise
from dlp_plugins.graph import Graph
from dlp_plugins.inputs import UNLABELED
from dlp_plugins.notebook.html import table
from dlp_plugins.propagation import Propagator
from dlp_plugins.propagation.beliefs import PLAIN, Beliefs
from dlp_plugins.propagation.duplicates import Distinct
from dlp_plugins.propagation.leave_one_out import LeaveOneOut
from dlp_plugins.propagation.propagator import full_precision
from dlp_plugins.refiners.none import NoRefiner
from dlp_plugins.registry import EMBEDDINGS_ALPHA

FOLDS = 5
FLOOR = 1e-3  # added to probabilities, so that neither kind of evidence alone excludes a class
WITNESSES = 3
MORE_LIKELY = 0.5
SHOWN = 10  # labels in a notebook
# Labels left out at each refresh of a training, and the error of G_ii that is enough for a rate.
GLANCE, GLANCE_TOLERANCE = 500, 1e-4


@dataclass(frozen=True)
class Audit:
    """Doubts about m given labels, in the order of their points.

    points: [m] int64, the labelled points.
    labels: [m] int64, as given.
    suggested: [m] int64, the class that the rest makes most likely; the given one where that is
        it, -1 where a label is the only one of its class.
    doubt: [m] float64, estimated probability that a label is wrong; NaN where it is the only one of
        its class, as then nothing else knows that class.
    against: [m, 3] int64, labelled points of the suggested class that add most to this one's score
        over the graph, the most first; -1 where there are fewer, or the given label is suggested.
    error_rate: estimated share of wrong labels.
    """

    points: np.ndarray
    labels: np.ndarray
    suggested: np.ndarray
    doubt: np.ndarray
    against: np.ndarray
    error_rate: float

    @property
    def order(self) -> np.ndarray:
        """[m] positions, the most doubtful label first, those without a doubt last."""
        return np.argsort(-np.nan_to_num(self.doubt, nan=-1.0), kind="stable")

    def _repr_html_(self) -> str:
        """For a notebook: the labels that are likely wrong, classes by number."""
        return audit_html(
            self.points[self.order], self.labels[self.order], self.suggested[self.order],
            self.doubt[self.order], self.error_rate, self.likely_wrong()[0],
        )  # fmt: skip

    def evidence(self, i: int) -> list[int]:
        """The points against label i, without the places that are empty."""
        return [int(p) for p in self.against[i] if p >= 0]

    def likely_wrong(self, precision: float = 0.0) -> tuple[int, float]:
        """How many of the most doubtful labels to look at, and the share of them that is wrong.

        Those that are wrong more likely than not, and of these so many that the estimated share,
        the mean of their doubts, is at least `precision`; the share is 0 where there are none.
        """
        doubt = np.sort(self.doubt[self.doubt >= MORE_LIKELY])[::-1]  # NaN is not
        mean = doubt.cumsum() / np.arange(1, len(doubt) + 1)
        count = int((mean >= precision).sum())
        return count, float(mean[count - 1]) if count else 0.0


def audit_html(
    points: np.ndarray,
    labels: np.ndarray,
    suggested: np.ndarray,
    doubt: np.ndarray,
    error_rate: float,
    count: int,
) -> str:
    """A table of the first `count` labels, in this order, under what was found of all.

    labels, suggested: classes as they are to be called.
    """
    rows = [
        (points[i], labels[i], suggested[i], f"{doubt[i]:.2f}") for i in range(min(count, SHOWN))
    ]
    return table(
        f"{count:,} of {len(points):,} labels are likely wrong",
        rows,
        ("point", "label", "suggested", "doubt"),
        f"and {count - SHOWN:,} more. " * (count > SHOWN)
        + f"Of all labels an estimated {error_rate:.1%} are wrong.",
    )


@dataclass(frozen=True)
class Evidence:
    """What the rest says of labelled points: of s of m, by default of all.

    points, labels: [m] int64, all of them.
    left_out: p [s, c], class-mass probabilities without the label itself.
    hidden: q [s, c], refined probabilities without a fifth of the labels; None without a refiner.
    prepared: the graph's part.
    """

    points: np.ndarray
    labels: np.ndarray
    left_out: np.ndarray
    hidden: np.ndarray | None
    prepared: LeaveOneOut

    @classmethod
    @full_precision()
    def of(
        cls,
        propagator: Propagator,
        descriptors: Tensor | None,
        graph: Graph,
        labels: Tensor,
        num_classes: int,
        distinct: Distinct | None = None,
        beliefs: Beliefs = PLAIN,
        seed: int = 0,
    ) -> Self:
        """As `audit_labels` takes them."""
        points = (labels != UNLABELED).nonzero().squeeze(1)
        if distinct is None:
            distinct = Distinct(torch.arange(len(labels)), None)
        alpha = propagator.alpha
        prepared = LeaveOneOut.of(graph, nodes_of(distinct, points), alpha=alpha)
        left_out = prepared(labels[points], num_classes, weights_of(beliefs, points))
        hidden = None
        if not isinstance(propagator.refiner, NoRefiner):
            hidden = _with_labels_hidden(
                propagator, descriptors, graph, labels, num_classes, distinct, beliefs, seed
            )
        p = left_out.probabilities.numpy()
        return cls(points.numpy(), labels[points].numpy(), p, hidden, prepared)

    def audit(self) -> Audit:
        """Doubts from both kinds of evidence."""
        which = self.prepared.which.numpy()
        points, y, rest = self.points[which], self.labels[which], self.left_out + FLOOR
        if self.hidden is not None:
            rest = np.sqrt(rest * (self.hidden + FLOOR))
        rest = rest / rest.sum(axis=1, keepdims=True)
        alone = np.bincount(self.labels)[y] == 1
        noise = LabelNoise.fit(rest[~alone], y[~alone])
        suggested = np.where(alone, UNLABELED, rest.argmax(axis=1))
        doubt = np.where(alone, np.nan, noise.doubt(rest, y))
        return Audit(points, y, suggested, doubt, self._against(y, suggested), noise.error_rate)

    def _against(self, labels: np.ndarray, suggested: np.ndarray) -> np.ndarray:
        found = np.full((len(labels), WITNESSES), UNLABELED)
        for i in np.flatnonzero((suggested != labels) & (suggested != UNLABELED)):
            others = self.prepared.strongest[i].numpy()
            others = others[others != UNLABELED]
            chosen = others[self.labels[others] == suggested[i]][:WITNESSES]
            found[i, : len(chosen)] = self.points[chosen]
        return found


def audit_labels(
    propagator: Propagator,
    descriptors: Tensor | None,
    graph: Graph,
    labels: Tensor,
    num_classes: int,
    distinct: Distinct | None = None,
    beliefs: Beliefs = PLAIN,
    seed: int = 0,
) -> Audit:
    """Doubt every given label, from the graph that is already built.

    Args:
        descriptors: F of the graph's nodes, for the refiner; None without one.
        labels: [n] int64 of the points, -1 where there is none.
        distinct: which node each point is; by default each is its own.
        beliefs: soft labels, weights and prior scores of the points. Of a soft label its largest
            share is doubted.
        seed: of the fold in which each label is hidden.
    """
    return Evidence.of(
        propagator, descriptors, graph, labels, num_classes, distinct, beliefs, seed
    ).audit()


def audit_by_graph(
    graph: Graph,
    labels: Tensor,
    num_classes: int,
    alpha: float = EMBEDDINGS_ALPHA,
    most: int = GLANCE,
    seed: int = 0,
) -> Audit:
    """Doubts by leave-one-out on the graph alone, of at most so many labels: a glance.

    Args:
        labels: [n] int64 of the nodes, -1 where there is none.
        most: labels to leave out, chosen at random where there are more; all labels are evidence.
    """
    nodes = (labels != UNLABELED).nonzero().squeeze(1).cpu()
    random = torch.Generator().manual_seed(seed)
    which = torch.randperm(len(nodes), generator=random)[:most].sort().values
    prepared = LeaveOneOut.of(graph, nodes, which=which, alpha=alpha, tolerance=GLANCE_TOLERANCE)
    own = labels.cpu()[nodes]
    left_out = prepared(own, num_classes).probabilities.numpy()
    return Evidence(nodes.numpy(), own.numpy(), left_out, None, prepared).audit()


def weights_of(beliefs: Beliefs, points: Tensor) -> Tensor:
    """[m] float64: what the label of each labelled point counts; 1 for a plain one."""
    if beliefs.given is None:
        return torch.ones(len(points), dtype=torch.float64)
    given = beliefs.given
    labeled, order = given.points.cpu().sort()
    return given.weights.cpu().double()[order][torch.searchsorted(labeled, points)]


def nodes_of(distinct: Distinct | None, points: Tensor) -> Tensor:
    """[m] the node of the graph that each point is."""
    return points if distinct is None or distinct.group is None else distinct.group[points]


def _with_labels_hidden(
    propagator: Propagator,
    descriptors: Tensor | None,
    graph: Graph,
    labels: Tensor,
    num_classes: int,
    distinct: Distinct,
    beliefs: Beliefs,
    seed: int,
) -> np.ndarray:
    """[m, c] refined probabilities of each labelled point, from labels of the other folds alone."""
    points = (labels != UNLABELED).nonzero().squeeze(1)
    fold = folds_of(labels[points], min(FOLDS, len(points)), seed)
    found = np.full((len(points), num_classes), 1 / num_classes)
    for k in range(int(fold.max()) + 1 if len(points) > 1 else 0):
        hidden = points[fold == k]
        kept = labels.clone()
        kept[hidden] = UNLABELED
        nodes = beliefs.without(kept == UNLABELED).grouped(distinct.group).to(graph.device)
        known = nodes.labels(distinct.labels(kept)).to(graph.device)
        q = propagator.spread(
            graph, known, num_classes, descriptors=descriptors, beliefs=nodes
        ).probabilities
        found[(fold == k).numpy()] = q[nodes_of(distinct, hidden).to(q.device)].cpu().numpy()
    return found


def folds_of(labels: Tensor, folds: int, seed: int) -> Tensor:
    """[m] the fold of each label: folds of equal size, and each class spread evenly over them."""
    random = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=random)
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    fold = torch.empty_like(by_class)
    fold[by_class] = torch.arange(len(labels)) % folds
    return fold
