"""How likely a label is right: class probabilities at a temperature found by cross-validation.

Shapes: n points, c classes, b rows, m of the points labelled, h of them held out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dlp_plugins.graph import Graph
from dlp_plugins.inputs import UNLABELED
from dlp_plugins.propagation.beliefs import PLAIN, Beliefs
from dlp_plugins.refiners.none import NoRefiner

if TYPE_CHECKING:
    from dlp_plugins.propagation.propagator import Propagator

COMPARED = 3  # classes of a row that share its probability; more spoil the ranking of labels
FOLDS = 5
MOST_FITS = 3  # propagations at most
MOST_ENTRIES = 2**24  # points times classes above which the fixed temperature serves
# Mean temperature with m labels per class on pets, aerial scenes and CIFAR-10 (docs/labels.md):
# END (1 + FEW / m), and the standard deviation of its logarithm between sets.
END, FEW, SPREAD = 6.0, 0.6, 0.3
UNREFINED_END, UNREFINED_SPREAD = 1.0, 1.0  # without a refiner rows are not too sure as a rule
TRUST = 3.0  # labels per class in a fold at which half of what held-out points say is believed
LOG_GRID = torch.linspace(math.log(0.1), math.log(100), 350, dtype=torch.float64)
TINY = 1e-9


@dataclass(frozen=True)
class Calibration:
    """How class probabilities become the probability that a label is right.

    held_out: labelled points on which the temperature was found; 0 where it is the fixed one.
    reason: why it is fixed; '' where it is not.
    """

    temperature: float
    held_out: int = 0
    reason: str = ""

    def probability(self, rows: Tensor, labels: Tensor) -> Tensor:
        """[b] float32, that labels [b] are right: softmax(log q / T) over the largest of a row.

        Args:
            rows: Q [b, c]; a row of zeros has probability 0.
            labels: -1 where there is none, of probability 0.
        """
        found = torch.zeros(len(rows), device=rows.device)
        used = (labels != UNLABELED) & rows.any(dim=1)
        found[used] = _at(self.temperature, *_logs(rows[used], labels[used])).float()
        return found

    def describe(self) -> str:
        if self.reason:
            return f"temperature {self.temperature:.2f}, a fixed value: {self.reason}"
        return (
            f"temperature {self.temperature:.2f}, by cross-validation on {self.held_out:,} "
            "labelled points"
        )


def fixed(per_class: float, refined: bool, reason: str) -> Calibration:
    """The temperature measured on other sets, for so many labels per class."""
    return Calibration(_usual(per_class, refined), 0, reason)


def calibrate(
    propagator: Propagator,
    graph: Graph,
    descriptors: Tensor | None,
    labels: Tensor,
    num_classes: int,
    beliefs: Beliefs = PLAIN,
    order: Tensor | None = None,
) -> Calibration:
    """The temperature at which held-out labels are right as often as their probabilities are large.

    The labelled points are split into folds, class by class; each fold's labels are hidden, spread
    again over the same graph, and compared. The temperature minimises

        - t sum_i w_i (g_i log p_i + (1 - g_i) log(1 - p_i)) + (log T - log T_0)^2 / (2 s^2),

    p_i the probability of the label found for held-out point i, g_i the share that label really
    has, w_i the weight of the point; T_0 and s are a temperature's mean and deviation on other
    sets, and t = m' / (m' + 3), as one of few labels misleads many points at once. A fold is fitted
    with fewer labels per class, m' instead of m, which makes temperatures larger: so T is
    multiplied by (1 + 0.6 / m) / (1 + 0.6 / m').

    The fixed value serves where no class has two labels, and above 2^24 points times classes.

    Args:
        descriptors: F [n, d], as `Propagator.spread` takes them.
        labels: [n], -1 where there is none.
        order: [n] int64, all points in the order in which folds are drawn; by default their own.
    """
    refined = not isinstance(propagator.refiner, NoRefiner)
    beliefs = beliefs.to("cpu")
    labels = beliefs.labels(labels).cpu()
    given = int((labels != UNLABELED).sum())
    per_class = given / num_classes
    if len(labels) * num_classes > MOST_ENTRIES:
        return fixed(per_class, refined, "cross-validation would take long for so many points")
    rows, shares, weights, left = [], [], [], []
    order = torch.arange(len(labels)) if order is None else order
    for chosen in _folds(labels[order], num_classes):
        hidden = torch.zeros_like(chosen)
        hidden[order] = chosen
        kept = torch.where(hidden, UNLABELED, labels)
        found = propagator.spread(
            graph, kept.to(graph.device), num_classes, None, descriptors, beliefs.without(hidden)
        )
        rows.append(found.probabilities[hidden.to(graph.device)].cpu())
        share, weight = _shares(labels, num_classes, beliefs, hidden)
        shares.append(share)
        weights.append(weight)
        left.append(int((kept != UNLABELED).sum()) / num_classes)
    if not rows:
        return fixed(per_class, refined, "no class has two labels")
    fewer = sum(left) / len(left)
    trust = torch.cat(weights) * fewer / (fewer + TRUST)
    temperature = _fit(torch.cat(rows), torch.cat(shares), trust, _usual(fewer, refined), refined)
    temperature *= _usual(per_class, refined) / _usual(fewer, refined)
    return Calibration(temperature, sum(map(len, rows)))


def _usual(per_class: float, refined: bool) -> float:
    """T_0."""
    return END * (1 + FEW / per_class) if refined else UNREFINED_END


def _fit(q: Tensor, shares: Tensor, weights: Tensor, usual: float, refined: bool) -> float:
    """T for rows Q [h, c], the shares [h, c] that their points really have, and weights [h]."""
    reached = q.any(dim=1)
    q, shares, weights = q[reached], shares[reached].double(), weights[reached].double()
    best = q.argmax(dim=1)
    right = shares.gather(1, best[:, None]).squeeze(1)
    own, largest = _logs(q, best)
    spread = SPREAD if refined else UNREFINED_SPREAD
    losses = []
    for log_t in LOG_GRID.tolist():
        p = _at(math.exp(log_t), own, largest).clamp(TINY, 1 - TINY)
        fit = (weights * (right * p.log() + (1 - right) * (1 - p).log())).sum()
        losses.append(float(-fit) + (log_t - math.log(usual)) ** 2 / (2 * spread**2))
    return math.exp(float(LOG_GRID[torch.tensor(losses).argmin()]))


def _logs(rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """log q [b] of the labels, and of the largest entries [b, 3], in float64."""
    largest = rows.topk(min(COMPARED, rows.shape[1]), dim=1).values
    return rows.gather(1, labels[:, None]).squeeze(1).double().log(), largest.double().log()


def _at(temperature: float, own: Tensor, largest: Tensor) -> Tensor:
    """[b]: softmax(log q / T) of the labels, over the largest."""
    return ((own / temperature) - (largest / temperature).logsumexp(dim=1)).exp().clamp(max=1.0)


def _shares(
    labels: Tensor, num_classes: int, beliefs: Beliefs, hidden: Tensor
) -> tuple[Tensor, Tensor]:
    """Shares [h, c] and weights [h] of the hidden points, in ascending order."""
    if beliefs.given is None:
        own = torch.nn.functional.one_hot(labels[hidden], num_classes)
        return own.double(), torch.ones(len(own), dtype=torch.float64)
    given = beliefs.given
    order = given.points.argsort()
    used = order[hidden[given.points[order]]]
    return given.distributions[used].double(), given.weights[used].double()


def _folds(labels: Tensor, num_classes: int) -> Iterator[Tensor]:
    """[n] bool of each fold: points whose label is hidden; a class keeps one label at least.

    As many folds as classes have labels on average, but 2 to 5, and the first three of them.
    """
    counts = torch.bincount(labels[labels != UNLABELED], minlength=num_classes)
    if int(counts.max()) < 2:
        return
    folds = int(counts[counts >= 2].float().mean().round().clamp(2, FOLDS))
    random = torch.Generator().manual_seed(0)
    fold = torch.full_like(labels, -1)
    for j in (counts >= 2).nonzero().squeeze(1).tolist():
        own = (labels == j).nonzero().squeeze(1)
        own = own[torch.randperm(len(own), generator=random)]
        first = int(torch.randint(folds, (1,), generator=random))
        fold[own] = (torch.arange(len(own)) + first) % folds
    for k in range(min(folds, MOST_FITS)):
        if (fold == k).any():
            yield fold == k
