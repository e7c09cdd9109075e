"""Solvers with class sizes against plain NumPy, and their sizes."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from oracles import class_sizes as oracle

from dlp_plugins.errors import ParameterError
from dlp_plugins.graph import Graph
from dlp_plugins.propagation import Propagator, label_matrix
from dlp_plugins.solvers import _local_order
from dlp_plugins.solvers._sizes import size_factors
from dlp_plugins.solvers.cut import CG_ITERATIONS, Cut
from dlp_plugins.solvers.poisson import QUICK
from dlp_plugins.solvers.poisson_mbo import PoissonMBO


def clusters(sizes, seed=0, between=0.04):
    """Weights W of noisy clusters [n, n], their classes [n], two labels of each [n]."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(len(sizes)), sizes)
    same = y[:, None] == y
    w = rng.random((len(y), len(y))) * (rng.random((len(y), len(y))) < np.where(same, 0.3, between))
    w = np.triu(w, 1) + np.triu(np.diag(np.full(len(y) - 1, 0.3), 1))
    first = np.searchsorted(y, np.arange(len(sizes)))
    labels = np.full(len(y), -1)
    labels[first] = labels[first + 1] = np.arange(len(sizes))
    return w + w.T, y, labels


def shares(y, labels):
    counts = np.bincount(y[labels < 0], minlength=y.max() + 1)
    return torch.from_numpy(counts / counts.sum()).float()


@pytest.mark.parametrize("seed", range(3))
def test_poisson_mbo_by_class_mass_equals_the_equations(seed) -> None:
    w, y, labels = clusters([20, 15, 10], seed)
    graph = Graph.from_affinity(w)
    solver = PoissonMBO(projection="class_mass").with_shares(shares(y, labels))
    solution = solver.solve(graph, label_matrix(torch.from_numpy(labels), 3))
    scores = oracle.poisson_mbo(w, labels, shares(y, labels).double().numpy())
    np.testing.assert_allclose(solution.scores, scores, rtol=1e-3, atol=1e-3)
    assert np.array_equal(solution.scores.argmax(dim=1), scores.argmax(axis=1))
    assert solution.converged == (float(solution.residual.max()) <= 1e-3)


@pytest.mark.parametrize("solver", [PoissonMBO(slack=0), Cut()], ids=["poisson_mbo", "cut"])
def test_every_class_gets_its_size(solver) -> None:
    w, y, labels = clusters([30, 12, 6])
    matrix = label_matrix(torch.from_numpy(labels), 3)
    found = solver.with_shares(shares(y, labels)).solve(Graph.from_affinity(w), matrix)
    sizes = np.bincount(found.scores.argmax(dim=1)[labels < 0], minlength=3)
    assert np.abs(sizes - np.bincount(y[labels < 0])).max() <= 1
    equal = solver.with_shares(torch.full((3,), 1 / 3))
    sizes = np.bincount(
        equal.solve(Graph.from_affinity(w), matrix).scores.argmax(dim=1)[labels < 0], minlength=3
    )
    assert np.abs(sizes - 14).max() <= 1


@pytest.mark.parametrize("slack", [0, 0.5])
def test_poisson_mbo_by_sizes_starts_and_stays_at_them(slack) -> None:
    w, y, labels = clusters([30, 12, 6])
    graph, pi = Graph.from_affinity(w), shares(y, labels)
    solver = PoissonMBO(slack=slack).with_shares(pi)
    solution = solver.solve(graph, label_matrix(torch.from_numpy(labels), 3))
    scores = oracle.poisson_mbo(w, labels, pi.double().numpy(), slack=slack)
    same = solution.scores.argmax(dim=1).numpy() == scores.argmax(axis=1)
    assert same.mean() >= 0.95  # sizes are met within one point, not always the same one


def test_wrong_sizes_cost_less_with_slack() -> None:
    w, y, labels = clusters([30, 30, 30], between=0.01)
    matrix, graph = label_matrix(torch.from_numpy(labels), 3), Graph.from_affinity(w)
    wrong = torch.tensor([0.4, 0.4, 0.2])
    right = {}
    for slack in (0, 0.5):
        solver = PoissonMBO(slack=slack).with_shares(wrong)
        found = solver.solve(graph, matrix).scores.argmax(dim=1).numpy()
        right[slack] = (found == y)[labels < 0].mean()
    assert right[0] < 0.9
    assert right[0.5] > right[0] + 0.03


def test_sizes_follow_the_factors_part_of_the_way() -> None:
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.gamma(0.5, size=(2000, 3)) * [1, 10, 0.1]).float()
    counted, wanted = torch.ones(2000), torch.tensor([800.0, 800.0, 400.0])
    r = size_factors(scores, counted, wanted, slack=0.5)
    sizes = torch.bincount((scores * r).argmax(dim=1), minlength=3)
    goal = wanted * r**-0.5
    assert (sizes - 2000 * goal / goal.sum()).abs().max() <= 2
    assert sizes[1] > 800 + 10
    none = torch.cat([scores, torch.zeros(2000, 1)], dim=1)  # a class without scores gets no point
    with_none = size_factors(none, counted, torch.tensor([800.0, 800.0, 400.0, 9.0]), slack=0.5)
    assert with_none.isfinite().all()
    assert torch.equal((none * with_none).argmax(dim=1), (scores * with_none[:3]).argmax(dim=1))


def test_the_cut_is_the_least_of_all_labels_of_these_sizes() -> None:
    w, y, labels = clusters([6, 5, 4], seed=1)
    pi = shares(y, labels)
    scores = Cut().with_shares(pi).solve(
        Graph.from_affinity(w), label_matrix(torch.from_numpy(labels), 3)
    ).scores  # fmt: skip
    own = np.where(labels < 0, scores.argmax(dim=1), labels)
    sizes = np.bincount(own[labels < 0])
    assert np.abs(sizes - np.bincount(y[labels < 0])).max() <= 1
    assert oracle.cut(w, own) == pytest.approx(oracle.least_cut(w, labels, sizes))


def test_factors_give_sizes_to_scores_of_any_scale() -> None:
    rng = np.random.default_rng(0)
    for scale in (1e-12, 1.0, 1e6):
        scores = torch.from_numpy(rng.gamma(0.5, size=(500, 4)) * scale * [1, 10, 0.1, 3]).float()
        counted, wanted = torch.ones(500), torch.tensor([200.0, 150.0, 100.0, 50.0])
        r = size_factors(scores, counted, wanted)
        sizes = torch.bincount((scores * r).argmax(dim=1), minlength=4)
        assert (sizes - wanted).abs().max() <= 1, scale


def test_sizes_that_are_not_known_are_refused() -> None:
    for name in ("poisson_mbo", "cut"):
        made = Propagator.default(solver=name, class_shares="estimate", k=5)
        with pytest.raises(ParameterError, match=f"{name} needs the class sizes"):
            made(torch.randn(20, 4), torch.tensor([0, 1] + [-1] * 18), 2)
    made = Propagator.default(
        solver="poisson_mbo", projection="class_mass", class_shares="estimate", k=5
    )
    found = made(torch.randn(20, 4), torch.tensor([0, 1] + [-1] * 18), 2)
    assert found.class_shares is not None


def test_points_of_no_label_stay_without() -> None:
    w, y, labels = clusters([10, 10, 10])
    w[y == 2] = w[:, y == 2] = 0
    labels[y == 2] = -1
    for solver in (PoissonMBO(), Cut()):
        scores = solver.solve(
            Graph.from_affinity(w), label_matrix(torch.from_numpy(labels), 3)
        ).scores
        assert not scores[y == 2].any()
        assert not scores[:, 2].any()
        assert scores[y < 2].any(dim=1).all()


@pytest.mark.parametrize("solver", [PoissonMBO(), Cut()], ids=["poisson_mbo", "cut"])
def test_the_graph_is_renumbered_once(solver, monkeypatch) -> None:
    w, y, labels = clusters([30, 20, 10])
    graph, matrix = Graph.from_affinity(w), label_matrix(torch.from_numpy(labels), 3)
    sized = solver.with_shares(shares(y, labels))
    plain = sized.solve(graph, matrix)
    orders = []
    monkeypatch.setattr(_local_order, "MIN_RENUMBERED_ENTRIES", 1)
    order = sp.csgraph.reverse_cuthill_mckee
    monkeypatch.setattr(
        sp.csgraph, "reverse_cuthill_mckee", lambda *a, **k: orders.append(1) or order(*a, **k)
    )
    found = sized.solve(graph, matrix)
    assert len(orders) == 1
    same = found.scores.argmax(dim=1) == plain.scores.argmax(dim=1)
    assert same.float().mean() > 0.9


def test_iterations_hold_those_of_the_start() -> None:
    w, y, labels = clusters([30, 20, 10])
    graph, matrix = Graph.from_affinity(w), label_matrix(torch.from_numpy(labels), 3)
    start = QUICK.solve(graph, matrix).iterations
    for solver, own in ((Cut(max_iterations=1), CG_ITERATIONS), (PoissonMBO(max_iterations=1), 40)):
        found = solver.with_shares(shares(y, labels)).solve(graph, matrix).iterations
        assert start < found <= start + own
