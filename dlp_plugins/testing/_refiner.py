"""check_refiner: class probabilities that favour no class and no point by its number."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from dlp_plugins.graph import Graph, assemble
from dlp_plugins.refiners.contract import Given, Refined, Refiner
from dlp_plugins.registry import refiners
from dlp_plugins.testing._common import built, require, require_tensor

POINTS, DIM, K = 90, 8, 5
ISLAND = slice(80, 90)  # points that no edge links to the others: no label reaches them
LEAST_AGREEMENT = 0.9  # share of old points that a classifier must label as the refiner did


def check_refiner(refiner: str | Refiner, **parameters: Any) -> None:
    """Check a refiner: rows that sum to 1, given labels kept, all else as for any other order.

    Raises:
        AssertionError: the sentence says what is wrong.
    """
    made: Refiner = built(refiners, refiner, parameters)
    for classes in (1, 2, 5):
        where = f"{made} with {classes} class{'es' if classes > 1 else ''}"
        problem = _Problem.of(classes)
        q = problem.refined(made, where).probabilities
        again = problem.refined(made, where).probabilities
        require(torch.equal(again, q), f"{where}: two calls differ")
        order = torch.randperm(POINTS, generator=torch.Generator().manual_seed(1))
        other = problem.permuted(order, torch.arange(classes + 1).roll(1))
        moved = other.refined(made, f"{where}, points and classes in another order").probabilities
        require(
            torch.allclose(moved, q[order].roll(1, dims=1), atol=1e-3),
            f"{where}: probabilities depend on the numbers of points or classes",
        )


class _Problem:
    """Clusters of points with a graph, of which an island has no label; the last class is absent.

    f: [n, d]. indices: [n, k] neighbours. p: [n, c + 1]. labels: [n], -1 where there is none.
    """

    def __init__(self, f: Tensor, indices: Tensor, p: Tensor, labels: Tensor) -> None:
        self.f, self.indices, self.p, self.labels = f, indices, p, labels
        self.graph: Graph = assemble(indices, torch.ones(indices.shape))

    @classmethod
    def of(cls, classes: int) -> _Problem:
        random = torch.Generator().manual_seed(0)
        truth = torch.arange(POINTS) % classes
        centers = torch.randn(classes, DIM, generator=random)
        f = F.normalize(centers[truth] + 0.7 * torch.randn(POINTS, DIM, generator=random), dim=1)
        similarity = (f @ f.T).fill_diagonal_(-torch.inf)
        similarity[ISLAND, : ISLAND.start] = similarity[: ISLAND.start, ISLAND] = -torch.inf
        labels = torch.where(torch.arange(POINTS) < 3 * classes, truth, -1)
        p = torch.rand(POINTS, classes + 1, generator=random)
        p += F.one_hot(truth, classes + 1)
        p[:, -1] = 0
        p[ISLAND] = 0
        known = labels >= 0
        p[known] = F.one_hot(labels[known], classes + 1).float()
        p = F.normalize(p, p=1, dim=1)
        return cls(f, similarity.topk(K, dim=1).indices, p, labels)

    def permuted(self, points: Tensor, classes: Tensor) -> _Problem:
        """The same with point points[i] as the i-th and column classes[j] as the j-th."""
        number = torch.empty_like(points)
        number[points] = torch.arange(len(points))
        column = torch.empty_like(classes)
        column[classes] = torch.arange(len(classes))
        labels = self.labels[points]
        labels = torch.where(labels >= 0, column[labels.clamp(min=0)], -1)
        p = self.p[points][:, classes]
        return _Problem(self.f[points], number[self.indices[points]], p, labels)

    def refined(self, made: Refiner, where: str) -> Refined:
        """What the refiner finds, after a check of what holds for every problem."""
        n, c = self.p.shape
        given, shares = Given.from_labels(self.labels, c), torch.full((c,), 1 / c)
        inputs = {
            "descriptors": self.f,
            "graph": self.graph.values,
            "given labels": given.distributions,
            "shares": shares,
        }
        before = {what: x.clone() for what, x in inputs.items()}
        found = made.refine(self.f, self.graph, self.p.clone(), given, shares)
        for what, x in inputs.items():
            require(torch.equal(x, before[what]), f"{where}: it changes the {what}")
        require(isinstance(found, Refined), f"{where}: refine() must return Refined")
        q = require_tensor(found.probabilities, (n, c), f"{where}: probabilities")
        _check_rows(q, self.p, f"{where}: probabilities")
        kept = torch.allclose(q[given.points], given.distributions, atol=1e-5)
        require(kept, f"{where}: a labelled row must stay as given")
        if found.classifier is not None:
            again = found.classifier.probabilities(self.f, self.graph.matmul(q))
            require_tensor(again, (n, c), f"{where}: probabilities of new points")
            _check_rows(again, torch.ones_like(q), f"{where}: probabilities of new points")
            same = (again.argmax(dim=1) == q.argmax(dim=1))[self.labels < 0].float().mean()
            require(
                same >= LEAST_AGREEMENT,
                f"{where}: of old points seen again {float(same):.2f} get the label they had; "
                f"{LEAST_AGREEMENT} are required",
            )
            more = made.continued(found.classifier)
            require(isinstance(more, Refiner), f"{where}: continued() must return a refiner")
            further = more.refine(self.f, self.graph, q.clone(), given, shares).probabilities
            _check_rows(further, self.p, f"{where}: probabilities of continued()")
            kept = torch.allclose(further[given.points], given.distributions, atol=1e-5)
            require(kept, f"{where}: continued(): a labelled row must stay as given")
            restored = made.restore(found.classifier.tensors())
            require(
                torch.allclose(restored.probabilities(self.f, self.graph.matmul(q)), again),
                f"{where}: restore() of its classifier's tensors() gives another classifier",
            )
        return found


def _check_rows(q: Tensor, p: Tensor, what: str) -> None:
    require((q >= 0).all(), f"{what}: one is negative: {float(q.min())}")
    total = q.sum(dim=1)
    fine = ((total - 1).abs() < 1e-4) | ((total == 0) & ~p.any(dim=1))
    require(fine.all(), f"{what}: a row must sum to 1, or stay zero where no label reaches")
