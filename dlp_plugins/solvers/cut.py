"""The labels of least cut whose classes have given sizes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Self

import torch
from pydantic import Field
from torch import Tensor

from dlp_plugins.errors import ParameterError
from dlp_plugins.graph import Graph
from dlp_plugins.registry import solvers
from dlp_plugins.solvers._conjugate_gradient import iterate
from dlp_plugins.solvers._local_order import in_local_order
from dlp_plugins.solvers._sizes import NEAR, size_factors
from dlp_plugins.solvers.contract import (
    Solution,
    Solver,
    all_true,
    column_norms,
    components_on,
)
from dlp_plugins.solvers.poisson import QUICK

S = 0.1  # of the concave term, the largest of the paper
PENALTY = 1.5  # of ADMM, over s max D, beyond which the problem in X is convex
LEAST_PENALTY = 0.1  # of the mean degree
CG_TOLERANCE, CG_ITERATIONS = 1e-3, 30


@solvers.register("cut")
@dataclass(frozen=True)
class Cut(Solver):
    """Class sizes and least cut (CutSSL, NeurIPS 2024), by ADMM from Poisson learning.

    min over X of 1/2 tr X^T (L_uu - s D_uu) X - <X, B>, with X 1 = 1, X^T 1 = m, X >= 0; u the
    unlabelled points, B = W_ul Y_l, m the classes' sizes (`class_shares`), L = D - W; s = 0.1, by
    which X comes near to labels of 0 and 1. A step of ADMM: X of the problem with equalities alone
    and rho/2 |X - T + V|^2, by conjugate gradient and two closed forms for the multipliers; T =
    max(X + V, 0); V = V + X - T. The last T is rounded to labels of the right sizes; scores are T
    times a factor for each class, whose argmax they are.

    Departure: X starts at the labels of `poisson` with these sizes, and at s = 0.1. The paper's
    start, the convex problem of s = 0, is near to uniform where labels are few, and the labels
    found from there cut more. The start is kept if its cut is less than the last one's.

    There is no alpha. `residual` is the points by which a class misses its size, over all
    unlabelled points: it does not measure how near the cut is to the least one, as that problem is
    not convex.
    """

    max_iterations: Annotated[int, Field(ge=1, description="steps of ADMM, at most")] = 60
    tolerance: Annotated[
        float, Field(gt=0, lt=1, description="change of X, relative, at which it ends")
    ] = 1e-2
    approximate = True
    columnwise = False
    vectors = 16
    _shares: Tensor | None = field(default=None, init=False, repr=False, compare=False)

    def with_shares(self, shares: Tensor | None) -> Self:
        if shares is None:
            raise ParameterError(
                "Solver cut needs the class sizes, and class_shares = 'estimate' finds them only "
                "after the solve. Give them, or take solver poisson_mbo with projection=class_mass."
            )
        found = replace(self)
        object.__setattr__(found, "_shares", shares)
        return found

    @in_local_order
    def solve(self, state: Graph, labels: Tensor, initial: Tensor | None = None) -> Solution:
        problem = _Problem.of(state, labels, self._shares)
        rho = LEAST_PENALTY + PENALTY * S * problem.degree.max()
        step = _Step.of(problem, S, rho)
        start = QUICK.solve(state, labels)
        best = problem.sized(start.scores.clamp(min=0))
        t = problem.labels(best)
        v, x, products = torch.zeros_like(t), t.clone(), start.iterations
        for _ in range(self.max_iterations):
            before = t
            x, used = step.minimize(t - v, x)
            t = (x + v).clamp_(min=0)
            v += x - t
            products += used
            if all_true(column_norms(t - before) <= self.tolerance * column_norms(t)):
                break
        last = problem.sized(t)
        best = torch.where(problem.cut(last) < problem.cut(best), last, best)
        scores = torch.where(problem.given.any(dim=1, keepdim=True), problem.given, best)
        residual = problem.missed(scores)
        enough = torch.clamp(1 / problem.inside.sum().clamp(min=1), min=NEAR)
        return Solution(scores, products, residual, all_true(residual <= 1.001 * enough))

    def residual(self, graph: Graph, labels: Tensor, scores: Tensor) -> Tensor:
        return _Problem.of(graph, labels, self._shares).missed(scores).double().cpu()

    def oracle(self, graph: Graph, labels: Tensor) -> Tensor:
        """None is known but trying all labels; tests compare the cut on small graphs."""
        raise NotImplementedError("the least cut with given sizes has no closed form")


@dataclass(frozen=True)
class _Problem:
    """Weights W over their mean degree, and what is wanted.

    graph: Wn. degree: D [n, 1]. given: [n, c], labelled rows that sum to 1, others 0.
    inside: [n, 1], 1 for an unlabelled point in a component with a label, else 0.
    wanted: m [c]. links: B [n, c].
    """

    graph: Graph
    degree: Tensor
    given: Tensor
    inside: Tensor
    wanted: Tensor
    links: Tensor

    @classmethod
    def of(cls, graph: Graph, labels: Tensor, shares: Tensor | None) -> _Problem:
        tiny = torch.finfo(labels.dtype).tiny
        component, count = components_on(graph, labels.device)
        given = labels / labels.sum(dim=1, keepdim=True).clamp(min=tiny)
        labeled = labels.any(dim=1)
        known = torch.zeros(count, device=labels.device).index_add_(0, component, labeled.float())
        inside = ((known > 0)[component] & ~labeled).to(labels)[:, None]
        present = labels.any(dim=0).to(labels)
        wanted = present if shares is None else present * shares.to(labels)
        wanted = inside.sum() * wanted / wanted.sum().clamp(min=tiny)
        degree = graph.degree[:, None] / graph.degree.mean().clamp(min=tiny)
        made = cls(graph, degree, given, inside, wanted, given)
        return replace(made, links=inside * made.neighbors(given))

    def neighbors(self, x: Tensor) -> Tensor:
        """W x [n, c]."""
        root = self.degree.sqrt()
        return root * self.graph.matmul(root * x)

    def sized(self, scores: Tensor) -> Tensor:
        """Scores >= 0 [n, c] times a factor for each class, by which their labels have its size."""
        return scores * size_factors(scores, self.inside[:, 0], self.wanted)

    def labels(self, scores: Tensor) -> Tensor:
        """One-hot [n, c] of the unlabelled points, zeros elsewhere."""
        at = scores.argmax(dim=1, keepdim=True)
        return torch.zeros_like(scores).scatter_(1, at, 1.0) * self.inside

    def cut(self, scores: Tensor) -> Tensor:
        """1/2 tr H^T L_uu H - <H, B> of the labels H that scores give."""
        h = self.labels(scores)
        return (h * (self.degree * h - self.inside * self.neighbors(h))).sum() / 2 - (
            h * self.links
        ).sum()

    def missed(self, scores: Tensor) -> Tensor:
        """[c]: points by which the labels that scores give miss the sizes, over all points."""
        sizes = self.labels(scores).sum(dim=0)
        return (sizes - self.wanted).abs() / self.inside.sum().clamp(min=1)


@dataclass(frozen=True)
class _Step:
    """X of 1/2 tr X^T A X - <X, R>, X 1 = 1, X^T 1 = m, for A = L_uu - s D_uu + rho.

    scaled: E^(-1/2) W_uu E^(-1/2) with E = (1 - s) D + rho, so that A = E^(1/2) (I - it) E^(1/2).
    scale: E^(-1/2) [n, 1]. spread: A^(-1) 1 [n, 1]. ones: A 1 [n, 1].
    """

    problem: _Problem
    rho: Tensor
    scaled: Graph
    scale: Tensor
    spread: Tensor
    ones: Tensor

    @classmethod
    def of(cls, problem: _Problem, s: float, rho: Tensor) -> _Step:
        g, inside = problem.graph, problem.inside
        e = (1 - s) * problem.degree + rho
        scale = e.rsqrt()
        factor = (inside * scale * problem.degree.sqrt())[:, 0]
        counts = g.crow_indices.diff().long()
        row = torch.arange(g.num_nodes, device=g.device)
        row = row.repeat_interleave(counts, output_size=g.num_entries)
        values = g.values * factor[row] * factor[g.col_indices.long()]
        scaled = Graph(g.crow_indices, g.col_indices, values, g.degree)
        ones = inside * (e * inside - problem.neighbors(inside))
        made = cls(problem, rho, scaled, scale, inside, ones)
        return replace(made, spread=made.inverse(inside, inside / rho)[0])

    def inverse(self, b: Tensor, guess: Tensor) -> tuple[Tensor, int]:
        """A^(-1) b [n, c] on the unlabelled points, and the products with the graph."""
        b = self.scale * b
        goal = CG_TOLERANCE * column_norms(b)
        y, counts = iterate(self.scaled, 1.0, b, guess / self.scale, goal, CG_ITERATIONS)
        return self.scale * y * self.problem.inside, int(counts.max())

    def minimize(self, target: Tensor, guess: Tensor) -> tuple[Tensor, int]:
        """X [n, c] for R = B + rho target.

        With multipliers of rows lambda = (A 1 - R 1) / c and of columns mu,
        X = A^(-1) (R + lambda 1^T) + A^(-1) 1 mu^T, mu = (m - 1^T A^(-1) (R + lambda 1^T)) / 1^T
        A^(-1) 1. Classes without a label are no columns of the problem.
        """
        present = (self.problem.wanted > 0).to(target)
        r = self.problem.links + self.rho * target * self.problem.inside
        row = (self.ones - r.sum(dim=1, keepdim=True)) / present.sum().clamp(min=1)
        x, used = self.inverse((r + row) * present * self.problem.inside, guess)
        missing = (self.problem.wanted - x.sum(dim=0)) * present
        return x + self.spread * missing / self.spread.sum().clamp(min=1e-12), used
