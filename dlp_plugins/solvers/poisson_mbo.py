"""Poisson learning in rounds of diffusion and of labels with given class sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from dlp_plugins.errors import ParameterError
from dlp_plugins.graph import Graph
from dlp_plugins.registry import solvers
from dlp_plugins.solvers._local_order import in_local_order
from dlp_plugins.solvers._rows import RowBlocks
from dlp_plugins.solvers._sizes import mass_factors, size_factors
from dlp_plugins.solvers.contract import (
    CHECK_EVERY,
    MaxIterations,
    Solution,
    Solver,
    all_true,
    components_on,
)
from dlp_plugins.solvers.poisson import QUICK, centered_sources


@solvers.register("poisson_mbo")
@dataclass(frozen=True)
class PoissonMBO(Solver):
    """Poisson MBO (Calder, Cook, Thorpe and Slepcev, ICML 2020, algorithm 2).

    From the labels of `poisson`, up to `max_iterations` rounds: X the one-hot labels, U = X, 40
    times U = U - dt (L U - F) with L = D - W, dt = 1 / max D, F the one-hot labelled rows less
    their mean; then the label argmax_j r_j u_ij. With `projection = "sizes"` r gives class j a size
    in proportion to pi_j r_j^(-slack), pi its share of the unlabelled points (`class_shares`): at
    `slack = 0` that share, and else it is the smaller the more its scores had to be raised. With
    "class_mass" r_j = pi_j / sum_i u_ij, which needs no sizes. Scores are r_j u_ij, clipped at 0,
    of the last round.

    Departures: slack, 0 in the paper, for sizes that are not known well; the first labels have
    these sizes too; labelled points keep their label; a round that changes no label is the last; F
    sums to 0 over every component of the graph. There is no alpha. `residual` is the share of the
    points whose label one more round would change, the same for every class.
    """

    projection: Annotated[
        Literal["sizes", "class_mass"], Field(description="how a round's labels follow from scores")
    ] = "sizes"
    slack: Annotated[
        float,
        Field(ge=0, description="how far sizes follow the scores; 0: they are as given"),
    ] = 0.6
    steps: Annotated[int, Field(ge=1, description="diffusion steps of a round")] = 40
    max_iterations: MaxIterations = 20
    tolerance: Annotated[
        float, Field(gt=0, lt=1, description="share of changed labels that is few enough")
    ] = 1e-3
    approximate = True
    columnwise = False
    vectors = 9
    _shares: Tensor | None = field(default=None, init=False, repr=False, compare=False)

    def with_shares(self, shares: Tensor | None) -> Self:
        if shares is None and self.projection == "sizes":
            raise ParameterError(
                "Solver poisson_mbo needs the class sizes, and class_shares = 'estimate' finds "
                "them only after the solve. Give them, or set solver.projection=class_mass."
            )
        found = replace(self)
        object.__setattr__(found, "_shares", shares)
        return found

    @in_local_order
    def solve(self, state: Graph, labels: Tensor, initial: Tensor | None = None) -> Solution:
        start = QUICK.solve(state, labels) if initial is None else None
        scores = initial if start is None else start.scores
        assert scores is not None
        rounds = self._rounds(state, labels)
        x = rounds.labels(scores) if start is None else self._first_labels(rounds, scores)
        same = False
        for done in range(1, self.max_iterations + 1):
            scores = rounds.scores(x)
            before, x = x, rounds.labels(scores)
            look = labels.device.type == "cpu" or done % CHECK_EVERY == 0
            if same := look and all_true(rounds.changed(before, x) == 0):
                break
        residual = rounds.changed(x, x if same else rounds.labels(rounds.scores(x)))
        iterations = self.steps * done + (0 if start is None else start.iterations)
        return Solution(scores, iterations, residual, all_true(residual <= self.tolerance))

    def residual(self, graph: Graph, labels: Tensor, scores: Tensor) -> Tensor:
        rounds = self._dense(graph, labels)
        x = rounds.labels(scores.double().cpu())
        return rounds.changed(x, rounds.labels(rounds.scores(x)))

    def oracle(self, graph: Graph, labels: Tensor) -> Tensor:
        """The same rounds, dense, in float64."""
        rounds = self._dense(graph, labels)
        x = self._first_labels(rounds, QUICK.oracle(graph, labels))
        for _ in range(self.max_iterations):
            scores = rounds.scores(x)
            x = rounds.labels(scores)
        return scores

    def _first_labels(self, rounds: _Rounds, u: Tensor) -> Tensor:
        """X [n, c] of the scores u of `poisson`: sizes, if known, hold from the start."""
        if self.projection != "sizes":
            return rounds.labels(u)
        u = u.clamp(min=0)
        return rounds.labels(u * rounds.factors(u, rounds.counted, rounds.wanted))

    def _dense(self, graph: Graph, labels: Tensor) -> _Rounds:
        wn = torch.from_numpy(graph.to_scipy().toarray()).double()
        made = self._rounds(graph, labels.double().cpu())
        return replace(made, product=lambda u, rows: wn[rows] @ u)

    def _rounds(self, graph: Graph, labels: Tensor) -> _Rounds:
        if self.projection == "sizes":
            factors = partial(size_factors, slack=self.slack)
        else:
            factors = partial(mass_factors)
        return _Rounds.of(graph, labels, self._shares, factors, self.steps)


@dataclass(frozen=True)
class _Rounds:
    """What does not change from round to round.

    product: rows of Wn times [n, c].
    move: dt D [n, 1]. root: D^(1/2) [n, 1]. sources: D^(1/2) dt F [n, c].
    given: [n, c], labelled rows that sum to 1, others 0.
    reached: [n, 1] bool, whether a label is in the point's component.
    counted: [n], 1 for an unlabelled point that is reached, else 0.
    wanted: [c] sizes of the classes among these.
    factors: r [c] from u, `counted` and `wanted`.
    """

    product: Callable[[Tensor, slice], Tensor]
    move: Tensor
    root: Tensor
    sources: Tensor
    given: Tensor
    reached: Tensor
    counted: Tensor
    wanted: Tensor
    factors: Callable[[Tensor, Tensor, Tensor], Tensor]
    steps: int

    @classmethod
    def of(
        cls,
        graph: Graph,
        labels: Tensor,
        shares: Tensor | None,
        factors: Callable[[Tensor, Tensor, Tensor], Tensor],
        steps: int,
    ) -> _Rounds:
        component, count = components_on(graph, labels.device)
        given = labels / labels.sum(dim=1, keepdim=True).clamp(min=torch.finfo(labels.dtype).tiny)
        labeled = labels.any(dim=1)
        known = torch.zeros(count, device=labels.device).index_add_(0, component, labeled.float())
        reached = (known > 0)[component]
        counted = (reached & ~labeled).to(labels)
        present = labels.any(dim=0).to(labels)
        wanted = present if shares is None else present * shares.to(labels)
        wanted = counted.sum() * wanted / wanted.sum().clamp(min=torch.finfo(labels.dtype).tiny)
        degree = graph.degree.to(labels)[:, None]
        largest = degree.max()
        dt = torch.where(largest > 0, 1 / largest, 0.0)
        root = degree.sqrt()
        sources = root * dt * centered_sources(given, component, count)[0]
        return cls(
            graph.matmul, dt * degree, root, sources, given, reached[:, None], counted, wanted,
            factors, steps,
        )  # fmt: skip

    def scores(self, x: Tensor) -> Tensor:
        """r_j u_ij [n, c] after the diffusion of labels x [n, c].

        With s = D^(1/2) u a step is s + dt D (Wn s - s) + D^(1/2) dt F.
        """
        s = self.root * x
        new = torch.empty_like(s)
        with RowBlocks(s) as blocks:
            for _ in range(self.steps):

                def step(rows: slice, s: Tensor = s, new: Tensor = new) -> None:
                    around = self.product(s, rows)
                    torch.lerp(s[rows], around, self.move[rows], out=new[rows])
                    new[rows] += self.sources[rows]

                blocks.map(step)
                s, new = new, s
        # a point without edges keeps its label
        u = torch.where(self.root > 0, s / self.root, x).clamp_(min=0)
        return u * self.factors(u, self.counted, self.wanted)

    def labels(self, scores: Tensor) -> Tensor:
        """X [n, c]: labelled rows as given, others one-hot, or zeros where no score is positive."""
        best, at = scores.max(dim=1, keepdim=True)
        x = torch.zeros_like(self.given)
        x.scatter_(1, at, (self.reached & (best > 0)).to(x))
        return torch.where(self.given.any(dim=1, keepdim=True), self.given, x)

    def changed(self, before: Tensor, after: Tensor) -> Tensor:
        """[c]: the share of unlabelled points whose label is another; 0 for a class without any."""
        other = (before != after).any(dim=1).to(before).sum()
        return other / self.counted.sum().clamp(min=1) * self.given.any(dim=0)
