"""Linear discriminant analysis on soft labels, smoothed over the graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from dlp_plugins import _logistic_regression
from dlp_plugins.graph import Graph
from dlp_plugins.refiners._balance import balance
from dlp_plugins.refiners.contract import Given, Refiner
from dlp_plugins.solvers._local_order import RENUMBER_FROM
from dlp_plugins.solvers._rows import EachBlock, by_rows

LABEL_WEIGHT = 5.0  # of a labelled point in the class means, beside an unlabelled one's 1
SHRINKAGE = 0.5  # of the covariance towards a multiple of the identity
TEMPERATURE = 0.4  # factor of the discriminant's scores
PRIOR_FLOOR = 0.001  # added to the logistic regression's probabilities, which may be near 0
SMOOTHING = 3.0  # factor of the neighbours' mean probabilities
SMOOTHING_STEPS = 3


@dataclass(frozen=True)
class Discriminant(Refiner):
    """Expectation maximisation of one Gaussian per class, with a smoothness term from the graph.

    R = P, labelled rows times 5 and the label's weight; N = R^T 1, M = diag(1/N) R^T F,
    S = (F^T diag(R 1) F - M^T diag(N) M) / sum N, Sigma = S / 2 + (trace S / 2d) I,
    L = 0.4 (F Sigma^-1 M^T - diag(M Sigma^-1 M^T) / 2) + log(p + 0.001), p the probabilities of a
    logistic regression on the labelled rows; Q = softmax(L), three times Q = softmax(L + 3 Wn Q),
    labelled rows as given throughout; Q is balanced and is the next step's P.

    One full covariance for all classes: a multiple of the identity in its place loses 7 to 9 points
    of accuracy. A class without mass is left out. Rows that no label
    reaches start from 1/c, c the classes that have any.
    """

    steps: Annotated[int, Field(ge=1, description="steps of expectation maximisation")] = 8

    def refine(
        self,
        descriptors: Tensor,
        graph: Graph,
        probabilities: Tensor,
        given: Given,
        shares: Tensor,
    ) -> Tensor:
        large = descriptors.device.type == "cpu" and probabilities.numel() >= RENUMBER_FROM
        if not large:
            return self._refine(descriptors, graph, probabilities, given, shares)
        # linked points near each other in memory: products with the graph find their rows in cache
        graph, order = graph.renumbered
        number = torch.empty_like(order)
        number[order] = torch.arange(len(order))
        given = Given(number[given.points], given.distributions, given.weights)
        q = self._refine(descriptors[order], graph, probabilities[order], given, shares)
        return probabilities.index_copy_(0, order, q)

    def _refine(
        self, f: Tensor, graph: Graph, p: Tensor, given: Given, shares: Tensor
    ) -> Tensor:
        unlabeled = f.new_ones(len(f))
        unlabeled[given.points] = 0
        reached, present = p.any(dim=1), p.any(dim=0) | given.distributions.any(dim=0)
        p[~reached] = present / present.sum()
        p[given.points] = given.distributions
        spare, scores = torch.empty_like(p), torch.empty_like(p)
        with by_rows(p) as each:
            log_prior = _log_prior(f, given, each)
            moments = _Moments.of(f, given, unlabeled, each)
            _balance_rows(p, unlabeled, shares, each)
            for _ in range(self.steps):
                directions, offsets = moments.discriminant(f, p, each)

                def classify(rows: slice, w: Tensor = directions, b: Tensor = offsets) -> None:
                    torch.addmm(b, f[rows], w, out=scores[rows]).add_(log_prior[rows])
                    torch.softmax(scores[rows], dim=1, out=p[rows])

                each(classify, p)
                for _ in range(SMOOTHING_STEPS):
                    p[given.points] = given.distributions

                    def smooth(rows: slice, q: Tensor = p, out: Tensor = spare) -> None:
                        z = torch.add(scores[rows], graph.matmul(q, rows), alpha=SMOOTHING)
                        torch.softmax(z, dim=1, out=out[rows])

                    each(smooth, p)
                    p, spare = spare, p
                p[given.points] = given.distributions
                _balance_rows(p, unlabeled, shares, each)
        return p


def _balance_rows(p: Tensor, unlabeled: Tensor, shares: Tensor, each: EachBlock) -> None:
    """Unlabelled rows of p balanced, in place; labelled ones stay as they are."""
    b = balance(p, unlabeled, shares, each)

    def divide(rows: slice) -> None:
        block = p[rows]
        scaled = block * b
        scaled /= scaled.sum(dim=1, keepdim=True)
        torch.where(unlabeled[rows, None] > 0, scaled, block, out=block)

    each(divide, p)


def _log_prior(f: Tensor, given: Given, each: EachBlock) -> Tensor:
    """log(p + 0.001) [n, c], p of a logistic regression fitted on the labelled rows."""
    model = _logistic_regression.fit(f[given.points], given.distributions, given.weights)
    return torch.cat(each(lambda rows: model.probabilities(f[rows]).add_(PRIOR_FLOOR).log_(), f))


@dataclass(frozen=True)
class _Moments:
    """What stays the same from step to step, as labelled rows and the sums of rows of R do. float64.

    second: F^T diag(R 1) F [d, d].
    extra_mass, extra_first: 1^T E [c] and E^T F [c, d], E = diag(5 w - 1) P of the labelled rows,
        which is what R has beyond P.
    total: sum N.
    """

    second: Tensor
    extra_mass: Tensor
    extra_first: Tensor
    total: float

    @classmethod
    def of(cls, f: Tensor, given: Given, unlabeled: Tensor, each: EachBlock) -> _Moments:
        labeled = f[given.points].double()
        beyond = LABEL_WEIGHT * given.weights.double() - 1
        # F^T F, and a correction by the few rows of R whose sum is not 1
        second = _sum(each, lambda rows: f[rows].T @ f[rows], f)
        second.addmm_(labeled.T, beyond[:, None] * labeled)
        extra = beyond[:, None] * given.distributions.double()
        return cls(
            second, extra.sum(dim=0), extra.T @ labeled, len(f) + float(beyond.sum())
        )

    def discriminant(self, f: Tensor, p: Tensor, each: EachBlock) -> tuple[Tensor, Tensor]:
        """Directions 0.4 Sigma^-1 M^T [d, c] and offsets -0.2 diag(M Sigma^-1 M^T) [c], float32."""
        first = _sum(each, lambda rows: p[rows].T @ f[rows], p).add_(self.extra_first)
        mass = _sum(each, lambda rows: p[rows].sum(dim=0), p).add_(self.extra_mass)
        present = mass > 0
        means = torch.where(present[:, None], first / mass[:, None], 0.0)
        covariance = (self.second - means.T @ (mass[:, None] * means)) / self.total
        d = len(covariance)
        sigma = (1 - SHRINKAGE) * covariance
        sigma.diagonal().add_(SHRINKAGE * covariance.trace() / d)
        directions = torch.cholesky_solve(means.T, torch.linalg.cholesky(sigma))
        offsets = -(means.T * directions).sum(dim=0) / 2
        offsets[~present] = -torch.inf
        return (TEMPERATURE * directions).to(f), (TEMPERATURE * offsets).to(f)


def _sum(each: EachBlock, f, x: Tensor) -> Tensor:
    """f of each block of rows of x, summed in float64."""
    total = None
    for part in each(f, x):
        total = part.double() if total is None else total.add_(part)
    assert total is not None
    return total
