"""Linear discriminant analysis on soft labels, smoothed over the graph."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Self

import torch
from pydantic import Field
from torch import Tensor

from dlp_plugins.graph import Graph
from dlp_plugins.refiners import _logistic_regression
from dlp_plugins.refiners._balance import balance
from dlp_plugins.refiners._gaussians import Moments
from dlp_plugins.refiners._logistic_regression import LogisticRegression
from dlp_plugins.refiners._softmax import softmax
from dlp_plugins.refiners.contract import Classifier, Empty, Given, Refined, Refiner
from dlp_plugins.registry import refiners
from dlp_plugins.solvers._local_order import MIN_RENUMBERED_ENTRIES
from dlp_plugins.solvers._rows import RowBlocks

PRIOR_FLOOR = 0.001  # added to the logistic regression's probabilities, which may be near 0
SMOOTHING = 3.0  # factor of the neighbours' mean probabilities
SMOOTHING_STEPS = 3
FEW_STEPS = 1  # from the last probabilities, when a few points are added


@refiners.register("discriminant")
@dataclass(frozen=True)
class Discriminant(Refiner):
    """Expectation maximisation of one Gaussian per class, with a smoothness term from the graph.

    Each step: L = 0.4 (F Sigma^-1 M^T - diag(M Sigma^-1 M^T) / 2) + log(p + 0.001), M the means and
    Sigma the shrunken covariance of P (`_gaussians.py`), p the probabilities of a logistic
    regression on the labelled rows (log(1/c) for a class that prior scores alone give mass); Q =
    softmax(L), three times Q = softmax(L + 3 Wn Q); Q balanced is the next P. Labelled rows are as
    given throughout. Rows that no label reaches start from 1/c, c the classes that have any mass; a
    class without mass is left out.

    When a few points are added (`continued`) it takes one step, and the logistic regression starts
    from the last one.

    Linear discriminant analysis on soft labels; the full covariance is what matters (a multiple of
    the identity loses 7 to 9 points of accuracy).
    """

    steps: Annotated[int, Field(ge=1, description="steps of expectation maximisation")] = 8
    by_blocks = True
    _last: LogisticRegression | None = field(default=None, init=False, repr=False, compare=False)

    def continued(self, classifier: Classifier | None) -> Self:
        found = replace(self, steps=min(FEW_STEPS, self.steps))
        if isinstance(classifier, FittedDiscriminant):
            object.__setattr__(found, "_last", classifier.prior)
        return found

    def refine(
        self,
        descriptors: Tensor,
        graph: Graph,
        probabilities: Tensor,
        given: Given,
        shares: Tensor,
        empty: Empty = torch.empty,
    ) -> Refined:
        small = probabilities.numel() < MIN_RENUMBERED_ENTRIES
        if descriptors.device.type != "cpu" or small or graph.in_local_order:
            return self._refine(descriptors, graph, probabilities, given, shares, empty)
        # linked points near each other in memory: products with the graph find their rows in cache
        graph, order = graph.renumbered
        number = torch.empty_like(order)
        number[order] = torch.arange(len(order))
        given = Given(number[given.points], given.distributions, given.weights)
        found = self._refine(descriptors[order], graph, probabilities[order], given, shares)
        probabilities.index_copy_(0, order, found.probabilities)
        return Refined(probabilities, found.classifier)

    def _refine(
        self,
        f: Tensor,
        graph: Graph,
        p: Tensor,
        given: Given,
        shares: Tensor,
        empty: Empty = torch.empty,
    ) -> Refined:
        unlabeled = f.new_ones(len(f))
        unlabeled[given.points] = 0
        present = p.any(dim=0) | given.distributions.any(dim=0)
        p[~p.any(dim=1)] = present / present.sum()
        p[given.points] = given.distributions
        prior = _logistic_regression.fit(
            f[given.points], given.distributions, given.weights, start=self._last
        )
        floor = torch.where(present & ~given.distributions.any(dim=0), 1 / p.shape[1], PRIOR_FLOOR)
        q, scores, log_prior = (empty(p.shape, device=p.device) for _ in range(3))
        with RowBlocks(p) as blocks:
            blocks.map(lambda rows: log_prior[rows].copy_(_log_prior(prior, floor, f[rows])))
            moments = Moments.of(f, given, blocks)
            factors = balance(p, unlabeled, shares, blocks)
            for _ in range(self.steps):
                v, u = moments.discriminant(f, p, blocks)

                def classify(rows: slice, v: Tensor = v, u: Tensor = u, p: Tensor = p) -> None:
                    torch.addmm(u, f[rows], v, out=scores[rows]).add_(log_prior[rows])
                    softmax(scores[rows], out=p[rows])

                blocks.map(classify)
                for _ in range(SMOOTHING_STEPS):
                    p[given.points] = given.distributions

                    def smooth(rows: slice, p: Tensor = p, q: Tensor = q) -> None:
                        z = torch.add(scores[rows], graph.matmul(p, rows), alpha=SMOOTHING)
                        softmax(z, out=q[rows])

                    blocks.map(smooth)
                    p, q = q, p
                p[given.points] = given.distributions
                factors = balance(p, unlabeled, shares, blocks)
        return Refined(p, FittedDiscriminant(v, u, prior, floor, factors))

    def restore(self, tensors: dict[str, Tensor]) -> FittedDiscriminant:
        prior = LogisticRegression(tensors["prior_weights"], tensors["prior_intercepts"])
        return FittedDiscriminant(
            tensors["directions"], tensors["offsets"], prior, tensors["floor"], tensors["factors"]
        )


@dataclass(frozen=True)
class FittedDiscriminant:
    """The last step's discriminant, for new points.

    directions: V [d, c] and offsets: u [c] of the scores f V + u.
    prior: the logistic regression.
    floor: [c], added to its probabilities.
    factors: b [c] of the last balance.
    """

    directions: Tensor
    offsets: Tensor
    prior: LogisticRegression
    floor: Tensor
    factors: Tensor

    def probabilities(self, descriptors: Tensor, neighbors: Tensor) -> Tensor:
        """[b, c] of rows [b, d] whose rows of Wn Q are `neighbors` [b, c]."""
        offsets, directions = self.offsets.to(descriptors), self.directions.to(descriptors)
        scores = torch.addmm(offsets, descriptors, directions)
        scores += _log_prior(self.prior, self.floor, descriptors) + SMOOTHING * neighbors
        q = softmax(scores) * self.factors.to(descriptors)
        return q / q.sum(dim=1, keepdim=True)

    def tensors(self) -> dict[str, Tensor]:
        return {
            "directions": self.directions,
            "offsets": self.offsets,
            "prior_weights": self.prior.weights,
            "prior_intercepts": self.prior.intercepts,
            "floor": self.floor,
            "factors": self.factors,
        }


def _log_prior(prior: LogisticRegression, floor: Tensor, f: Tensor) -> Tensor:
    return prior.probabilities(f).add_(floor.to(f)).log_()
