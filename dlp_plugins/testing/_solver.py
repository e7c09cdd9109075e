"""check_solver: scores against the dense float64 oracle, and a true convergence record."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from dlp_plugins.graph import Graph
from dlp_plugins.registry import solvers
from dlp_plugins.solvers.contract import Solution, Solver
from dlp_plugins.testing._common import built, require, require_tensor

ALPHAS = (0.0, 0.5, 0.99, 0.999)
# Up to here the system is so well conditioned that every solver must converge.
EASY_ALPHA = 0.5
MANY_ITERATIONS = 300
EPS = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class _Case:
    name: str
    graph: Graph
    labels: Tensor  # [n, c], Y


def check_solver(
    solver: str | Solver,
    *,
    accuracy: float = 1e-3,
    device: str | torch.device = "cpu",
    **parameters: Any,
) -> None:
    """Check a solver's contract on small graphs.

    Checked are shapes, types and finite numbers; inputs that are not changed; the same answer
    twice; zeros for empty classes and for nodes that no label reaches, also from a bad first guess;
    the same scores for a class alone as among others (unless `columnwise` is False); a residual
    that is the true one, computed here in float64; and, if `converged` or `limited_by_precision`,
    scores within `accuracy` of `solver.oracle`. The graphs have an isolated node, a component
    without labels, an empty class, one class alone, no edge at all.

    Args:
        solver: a solver, checked as it is: it must converge on these graphs of at most 24 nodes; or
            a registered name, built with several alpha and many iterations where it has these
            parameters. It must then converge at alpha <= 0.5, and above report truly whether it
            did. A solver with `approximate` need not converge anywhere, nor match the oracle.
        accuracy: largest relative error against the oracle.
        device: where graphs and labels lie. On a GPU two solves may differ by rounding.
        parameters: to build a named solver with.

    Raises:
        AssertionError: with a sentence on what is wrong, and on which graph.
    """
    for candidate, must_converge in _candidates(solver, parameters):
        for case in _cases():
            case = replace(case, graph=case.graph.to(device), labels=case.labels.to(device))
            _check(candidate, case, accuracy, must_converge and not candidate.approximate)


def _candidates(solver: str | Solver, parameters: dict[str, Any]) -> Iterator[tuple[Solver, bool]]:
    if not isinstance(solver, str):
        yield built(solvers, solver, parameters), True
        return
    declared = {p.name for p in solvers.get(solver).parameters}
    if "max_iterations" in declared:
        parameters = {"max_iterations": MANY_ITERATIONS, **parameters}
    if "alpha" not in declared or "alpha" in parameters:
        yield built(solvers, solver, parameters), True
        return
    for alpha in ALPHAS:
        yield built(solvers, solver, {**parameters, "alpha": alpha}), alpha <= EASY_ALPHA


def _check(solver: Solver, case: _Case, accuracy: float, must_converge: bool) -> None:
    graph, y = case.graph, case.labels
    where = f"{solver} on {case.name}"
    graph_before, y_before = _snapshot(graph), y.clone()
    solution = solver.solve(solver.prepare(graph), y)
    require(torch.equal(y, y_before), f"{where}: it changes the label matrix it is given")
    require(
        all(map(torch.equal, _snapshot(graph), graph_before)),
        f"{where}: it changes the graph it is given",
    )
    _check_record(solution, y, where)
    _check_zeros(solution.scores, case, where)
    residual = _check_residual(solver, case, solution, where)
    settled = solution.converged or solution.limited_by_precision
    if settled and not solver.approximate:
        error = _error(solver, case, solution)
        require(
            error <= accuracy,
            f"{where}: it reports that it converged, but its scores differ from the oracle by "
            f"{error:.1e} (relative), more than {accuracy:.0e}",
        )
    require(
        settled or not must_converge,
        f"{where}: it does not converge (largest residual {float(residual.max()):.1e}, "
        f"{solution.iterations} iterations)",
    )

    again = solver.solve(solver.prepare(graph), y)
    same = torch.equal if y.device.type == "cpu" else torch.allclose  # atomic sums have no order
    require(same(again.scores, solution.scores), f"{where}: two solves differ")

    # A bad first guess: wrong everywhere, not 0 where the answer is 0.
    guess = solution.scores + solution.scores.abs().mean()
    guess_before = guess.clone()
    warm = solver.solve(solver.prepare(graph), y, guess)
    _check_record(warm, y, f"{where}, from a first guess")
    _check_zeros(warm.scores, case, f"{where}, from a first guess")
    _check_residual(solver, case, warm, f"{where}, from a first guess")
    require(
        not (warm.converged or warm.limited_by_precision)
        or solver.approximate
        or _error(solver, case, warm) <= accuracy,
        f"{where}: from a first guess it reports that it converged, but differs from the oracle",
    )
    require(torch.equal(guess, guess_before), f"{where}: it changes the first guess it is given")

    if solver.columnwise:
        alone = solver.solve(solver.prepare(graph), y[:, :1].contiguous()).scores
        size = solution.scores[:, :1].norm()
        require(
            (alone - solution.scores[:, :1]).norm() <= accuracy * size or not settled,
            f"{where}: the first class alone gets other scores than among the others; if classes "
            "depend on each other, set columnwise = False",
        )


def _check_record(solution: Solution, y: Tensor, where: str) -> None:
    require(isinstance(solution, Solution), f"{where}: solve must return a Solution")
    require_tensor(solution.scores, tuple(y.shape), f"{where}: scores")
    residual = require_tensor(solution.residual, (y.shape[1],), f"{where}: residual", None)
    require(solution.scores.device == y.device, f"{where}: scores must be on the labels' device")
    require((residual >= 0).all(), f"{where}: a residual is negative")
    for field in ("converged", "limited_by_precision"):
        require(
            isinstance(getattr(solution, field), bool), f"{where}: {field} must be True or False"
        )
    require(
        not (solution.converged and solution.limited_by_precision),
        f"{where}: it reports both that it converged and that precision kept it from that",
    )
    require(
        isinstance(solution.iterations, int) and solution.iterations >= 0,
        f"{where}: iterations must be a whole number from 0; it is {solution.iterations!r}",
    )


def _check_zeros(scores: Tensor, case: _Case, where: str) -> None:
    component = case.graph.components
    reached = torch.isin(component, component[case.labels.any(dim=1).cpu()]).to(scores.device)
    require(
        not scores[~reached].any(),
        f"{where}: a node that no label reaches must have a row of exact zeros",
    )
    require(
        not scores[:, ~case.labels.any(dim=0)].any(),
        f"{where}: a class without a label must have a column of exact zeros",
    )


def _check_residual(solver: Solver, case: _Case, solution: Solution, where: str) -> Tensor:
    true = solver.residual(case.graph, case.labels, solution.scores)
    z, size = solution.scores.double().cpu(), _right_side(solver, case).norm(dim=0)
    # The error of float32 arithmetic: a few roundings of z, in units of b.
    rounding = torch.where(size > 0, 16 * EPS * (1 + z.norm(dim=0) / size), 0.0)
    off = (solution.residual.double().cpu() - true).abs() > 0.05 * true + rounding
    require(
        not off.any(),
        f"{where}: the residual it reports, {solution.residual.tolist()}, is not the true one, "
        f"{true.tolist()}",
    )
    tolerance = getattr(solver, "tolerance", 0.0)
    require(
        not solution.limited_by_precision or (true <= tolerance + rounding).all(),
        f"{where}: it reports that only precision keeps it from converging, but its residual, "
        f"{true.tolist()}, is far above rounding",
    )
    return true


def _right_side(solver: Solver, case: _Case) -> Tensor:
    """B [n, c] of the solver's system; Y for one that is about no linear system."""
    if type(solver).residual is not Solver.residual:
        return case.labels.double().cpu()
    return solver.system(case.graph, case.labels)[1]


def _error(solver: Solver, case: _Case, solution: Solution) -> float:
    exact = solver.oracle(case.graph, case.labels)
    return float((solution.scores.double().cpu() - exact).norm() / exact.norm())


def _snapshot(graph: Graph) -> list[Tensor]:
    parts = (graph.crow_indices, graph.col_indices, graph.values, graph.degree)
    return [p.clone() for p in parts]


def _cases() -> Iterator[_Case]:
    classes = [0, 0, 0, 1, 1, 3]  # class 2 of 4 has no label
    for seed in range(2):
        w = _random_affinity(24, seed)
        yield _Case("a connected graph", Graph.from_affinity(w), _label_matrix(24, 4, classes))
        w = w.tolil()
        w[0, :] = w[:, 0] = 0  # an isolated node, labelled
        w[23, :] = w[:, 23] = 0  # one without a label
        w[18:, :18] = w[:18, 18:] = 0  # a component without a label
        yield _Case(
            "a graph with isolated nodes, an empty class and a component without labels",
            Graph.from_affinity(w.tocsr()),
            _label_matrix(24, 4, classes),
        )
    yield _Case("one class alone", Graph.from_affinity(w.tocsr()), _label_matrix(24, 1, [0, 0]))
    yield _Case("a graph without edges", Graph.from_affinity(sp.csr_matrix((3, 3))),
                _label_matrix(3, 2, [0, 1]))  # fmt: skip


def _random_affinity(n: int, seed: int) -> sp.csr_matrix:
    """Symmetric, a ring (so that it is connected) and random edges besides."""
    random = np.random.default_rng(seed)
    w = np.triu(random.random((n, n)) * (random.random((n, n)) < 0.15), 1)
    w[np.arange(n - 1), np.arange(1, n)] += 0.5
    return sp.csr_matrix(w + w.T)


def _label_matrix(n: int, num_classes: int, classes: list[int]) -> Tensor:
    """Y [n, c] with the first nodes labelled: 1 over the number of labels of the class."""
    own = torch.tensor(classes)
    y = torch.zeros(n, num_classes)
    y[torch.arange(len(own)), own] = 1 / torch.bincount(own)[own].float()
    return y
