"""Solvers against each other, against dense float64, and at the edges of what a graph can be."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from torch import Tensor

from dlp_plugins.errors import GraphError, RegistryError
from dlp_plugins.graph import Graph
from dlp_plugins.propagation import label_matrix
from dlp_plugins.registry import solvers
from dlp_plugins.solvers import Solution, Solver, _conjugate_gradient, _local_order, _rows
from dlp_plugins.solvers.contract import column_norms, goal, rounding
from dlp_plugins.solvers.poisson import Poisson

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # torch_sparse at import
    pytest.mark.usefixtures("one_thread"),
]
ALPHAS = st.sampled_from([0.0, 0.1, 0.5, 0.9, 0.99])
SAME_SYSTEM = {"cg", "power", "chebyshev", "closed_form", "torch_sparse", "amg"}


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, Tensor]:
    """W [n, n] dense and labels [n] of 4 classes.

    Node n - 1 is isolated; nodes 0..2 are a component without a label; class 3 has no label.
    """
    n = draw(st.integers(8, 30))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    density = draw(st.sampled_from([0.1, 0.3, 0.9]))
    w = np.triu(random.random((n, n)) * (random.random((n, n)) < density), 1)
    w[0, 1] = w[1, 2] = 0.5
    w[:3, 3:] = 0
    w[:, n - 1] = 0
    labels = torch.full((n,), -1)
    labels[3:6] = torch.tensor([0, 1, 2])
    extra = draw(st.integers(0, n - 7))
    labels[6 : 6 + extra] = torch.from_numpy(random.integers(-1, 3, extra))
    return w + w.T, labels


def exact(w: np.ndarray, alpha: float, y: np.ndarray) -> np.ndarray:
    """(I - alpha D^(-1/2) W D^(-1/2))^(-1) Y from affinities, in float64, by NumPy alone."""
    degree = w.sum(axis=1)
    scale = np.zeros_like(degree)
    scale[degree > 0] = degree[degree > 0] ** -0.5
    wn = scale[:, None] * w * scale
    return np.linalg.inv(np.eye(len(w)) - alpha * wn) @ y


def run(name: str, graph: Graph, y: Tensor, **parameters: Any) -> Any:
    solver = solvers.build(name, **parameters)
    return solver.solve(solver.prepare(graph), y)


@settings(max_examples=40, deadline=None)
@given(problem=problems(), alpha=ALPHAS)
def test_solvers_agree_with_dense_float64_and_each_other(
    problem: tuple[np.ndarray, Tensor], alpha: float
) -> None:
    w, labels = problem
    graph, y = Graph.from_affinity(sp.csr_matrix(w)), label_matrix(labels, 4)
    truth = exact(w, alpha, y.double().numpy())
    for name, more in (
        ("closed_form", {}),
        ("cg", {"max_iterations": 200}),
        ("chebyshev", {"max_iterations": 400}),
        ("power", {"max_iterations": 3000}),
    ):
        solution = run(name, graph, y, alpha=alpha, **more)
        # Chebyshev's recurrence carries rounding along: on a bipartite graph, alpha near 1, it may
        # stop short of what the others reach, and then reports it.
        done = solution.converged or solution.limited_by_precision
        assert done or (name == "chebyshev" and solution.residual.max() < 1e-3), name
        np.testing.assert_allclose(solution.scores, truth, rtol=0, atol=2e-4 * abs(truth).max())
        assert not solution.scores[:3].any(), name  # the component without a label
        assert not solution.scores[-1].any(), name  # the isolated node
        assert not solution.scores[:, 3].any(), name  # the empty class
        assert solution.residual[3] == 0, name


@pytest.mark.parametrize("name", sorted(SAME_SYSTEM))
def test_every_solver_of_the_system_against_dense_float64(name: str) -> None:
    if missing := solvers.get(name).missing():
        pytest.skip(f"needs {', '.join(missing)}")
    random = np.random.default_rng(1)
    w = np.triu(random.random((40, 40)) * (random.random((40, 40)) < 0.2), 1)
    labels = torch.full((40,), -1)
    labels[:6] = torch.tensor([0, 0, 1, 2, 2, 2])
    y = label_matrix(labels, 3)
    more = {} if name == "closed_form" else {"max_iterations": 3000}
    solution = run(name, Graph.from_affinity(sp.csr_matrix(w + w.T)), y, alpha=0.95, **more)
    truth = exact(w + w.T, 0.95, y.double().numpy())
    np.testing.assert_allclose(solution.scores, truth, rtol=0, atol=1e-4 * abs(truth).max())


def ring(n: int) -> Graph:
    w = sp.diags([1.0, 1.0], [1, -1], shape=(n, n), format="lil")
    w[0, n - 1] = w[n - 1, 0] = 1
    return Graph.from_affinity(w.tocsr())


def spread_labels(n: int, classes: int) -> Tensor:
    labels = torch.full((n,), -1)
    labels[torch.arange(classes) * (n // classes)] = torch.arange(classes)
    return label_matrix(labels, classes)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.9, 0.99])
def test_chebyshev_takes_about_as_many_iterations_as_it_says(alpha: float) -> None:
    solver = solvers.build("chebyshev", alpha=alpha, max_iterations=1000, tolerance=1e-4)
    graph, y = ring(2000), spread_labels(2000, 2)
    found = solver.solve(solver.prepare(graph), y)
    assert found.converged
    assert 0.5 * solver.usual_iterations <= found.iterations <= solver.usual_iterations + 6
    assert solvers.build("chebyshev", max_iterations=7).usual_iterations == 7


@pytest.mark.parametrize("name", ["cg", "power", "chebyshev"])
def test_too_few_iterations_are_not_convergence(name: str) -> None:
    solution = run(name, ring(200), spread_labels(200, 2), alpha=0.99, max_iterations=5)
    assert solution.iterations == 5
    assert not solution.converged
    assert solution.residual.min() > 1e-3


@pytest.mark.parametrize("name", ["cg", "power", "chebyshev"])
def test_converging_at_the_last_iteration_is_convergence(name: str) -> None:
    """Judged by the residual, never by 'fewer than the maximum of iterations'."""
    graph, y = ring(60), spread_labels(60, 2)
    free = run(name, graph, y, alpha=0.5, max_iterations=500)
    assert free.converged
    assert run(name, graph, y, alpha=0.5, max_iterations=free.iterations).converged


@pytest.mark.parametrize("name", ["cg", "power", "chebyshev", "amg", "poisson"])
def test_a_warm_start_saves_iterations(name: str) -> None:
    if missing := solvers.get(name).missing():
        pytest.skip(f"needs {', '.join(missing)}")
    graph, y = ring(60), spread_labels(60, 3)
    own = {} if name == "poisson" else {"alpha": 0.9}
    solver = solvers.build(name, max_iterations=400, tolerance=1e-5, **own)
    cold = solver.solve(solver.prepare(graph), y)
    warm = solver.solve(solver.prepare(graph), y, cold.scores)
    assert cold.converged
    assert warm.converged
    assert warm.iterations < cold.iterations / 2
    torch.testing.assert_close(warm.scores, cold.scores, rtol=1e-3, atol=1e-5)


def test_conjugate_gradient_drops_converged_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three classes end at once (isolated nodes), one goes on: only the product shrinks."""
    w = np.zeros((40, 40))
    w[3:, 3:] = ring(37).to_scipy().toarray()
    graph = Graph.from_affinity(sp.csr_matrix(w))
    labels = torch.full((40,), -1)
    labels[:4] = torch.tensor([0, 1, 2, 3])
    y = label_matrix(labels, 4)
    widths = []
    product = Graph.matmul

    def counted(self: Graph, x: Tensor, *rows: slice) -> Tensor:
        widths.append(x.shape[1])
        return product(self, x, *rows)

    monkeypatch.setattr(Graph, "matmul", counted)
    solution = run("cg", graph, y, alpha=0.99, max_iterations=100)
    assert widths[0] == widths[-1] == 4  # the first, and the residual of the answer
    assert set(widths[1:-1]) == {1}
    truth = exact(w, 0.99, y.double().numpy())
    np.testing.assert_allclose(solution.scores, truth, rtol=0, atol=1e-4 * abs(truth).max())


def test_conjugate_gradient_renumbers_nodes_without_changing_the_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = np.random.default_rng(0)
    w = sp.random(500, 500, 0.02, random_state=random)
    graph, y = Graph.from_affinity(w + w.T), spread_labels(500, 5)
    plain = run("cg", graph, y, alpha=0.9, max_iterations=100)
    assert "renumbered" not in vars(graph)
    monkeypatch.setattr(_local_order, "MIN_RENUMBERED_ENTRIES", 1)
    for order in (None, torch.randperm(500, generator=torch.Generator().manual_seed(0))):
        graph = replace(graph, order=order)
        cg = solvers.build("cg", alpha=0.9, max_iterations=100)
        for solution in (cg.solve(graph, y), cg.solve(graph, y, plain.scores + 0.1)):
            assert solution.converged
            torch.testing.assert_close(solution.scores, plain.scores, rtol=1e-4, atol=1e-6)
        assert cg.solve(graph, y, plain.scores).iterations <= 1
    local, order = graph.renumbered
    permuted = graph.to_scipy()[order.numpy()][:, order.numpy()]
    assert abs(local.to_scipy() - permuted).max() == 0
    torch.testing.assert_close(local.degree, graph.degree[order])


def test_blocks_of_rows_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, y = ring(100), spread_labels(100, 3)
    whole = run("cg", graph, y, alpha=0.9, max_iterations=100)
    monkeypatch.setattr(_rows, "BLOCK_ENTRIES", 21)  # 7 rows; the last block has 2
    torch.testing.assert_close(
        run("cg", graph, y, alpha=0.9, max_iterations=100).scores, whole.scores
    )


@pytest.mark.parametrize("name", ["cg", "power", "chebyshev", "poisson"])
def test_in_inference_mode_on_worker_threads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, y = ring(100), spread_labels(100, 3)
    outside = run(name, graph, y, max_iterations=10)
    monkeypatch.setattr(_rows, "BLOCK_ENTRIES", 21)
    with torch.inference_mode():
        inside = run(name, graph, spread_labels(100, 3), max_iterations=10)
    torch.testing.assert_close(inside.scores, outside.scores)


def test_column_norms_by_blocks() -> None:
    x = torch.randn(30_000, 70, generator=torch.Generator().manual_seed(0))  # two blocks
    torch.testing.assert_close(column_norms(x).double(), x.double().norm(dim=0), rtol=1e-6, atol=0)


def test_rows_of_a_product() -> None:
    graph, x = ring(50), torch.randn(50, 3)
    for rows in (slice(None), slice(0, 7), slice(7, 40), slice(40, 90), slice(50, 60)):
        torch.testing.assert_close(graph.matmul(x, rows), graph.matmul(x)[rows])


def test_iterations_stop_at_the_tolerance_or_at_rounding_if_that_is_more() -> None:
    y, z = torch.eye(10, 2), torch.ones(10, 2)
    once = torch.finfo(torch.float32).eps * 10**0.5
    assert rounding(z).tolist() == pytest.approx([once, once])
    assert goal(1e-3, z, y).tolist() == pytest.approx([1e-3, 1e-3])
    assert goal(1e-9, z, y).tolist() == pytest.approx([6 * once, 6 * once])


@pytest.mark.parametrize(
    ("residual", "converged", "limited"),
    [
        ([1e-6, 0.0], True, False),
        ([1.01e-6, 0.0], False, True),
        ([9e-6, 0.0], False, True),  # 1e-6 and 8 roundings of scores ten times the labels: 1.05e-5
        ([9e-6, 2e-5], False, False),
        ([torch.nan, 0.0], False, False),
    ],
)
def test_a_residual_is_within_the_tolerance_or_limited_by_precision_or_neither(
    residual: list[float], converged: bool, limited: bool
) -> None:
    y = torch.eye(100, 2)
    solution = Solution.judged(torch.ones(100, 2), 7, torch.tensor(residual), 1e-6, y)
    assert (solution.converged, solution.limited_by_precision) == (converged, limited)


@pytest.mark.parametrize(
    ("name", "alpha", "at_least"),
    [
        ("cg", 0.99999, 1e-3),
        ("closed_form", 0.99999, 5e-4),
        ("amg", 0.99999, 5e-4),
        ("chebyshev", 0.999, 1e-5),
        ("power", 0.99, 5e-6),
    ],
)
def test_converged_means_within_the_tolerance_near_alpha_1(
    name: str, alpha: float, at_least: float
) -> None:
    """float32 cannot reach 1e-6 here; that is reported apart, and not as convergence."""
    if missing := solvers.get(name).missing():
        pytest.skip(f"needs {', '.join(missing)}")
    more = {} if name == "closed_form" else {"max_iterations": 2000}
    solution = run(name, ring(40), spread_labels(40, 2), alpha=alpha, **more)
    assert solution.residual.max() > at_least
    assert not solution.converged
    assert solution.limited_by_precision


def test_conjugate_gradient_starts_again_where_rounding_kept_it_above_the_tolerance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph, y = ring(501), spread_labels(501, 5)
    solution = run("cg", graph, y, alpha=0.97, max_iterations=200)
    assert solution.converged
    wn = graph.to_scipy().astype(np.float64)
    z, b = solution.scores.double().numpy(), y.double().numpy()
    left = np.linalg.norm(b - z + 0.97 * (wn @ z), axis=0) / np.linalg.norm(b, axis=0)
    assert left.max() <= 1.05e-6  # the solver's own residual has a rounding error
    monkeypatch.setattr(_conjugate_gradient, "MAX_RESTARTS", 0)
    drifted = run("cg", graph, y, alpha=0.97, max_iterations=200)
    assert not drifted.converged
    assert drifted.limited_by_precision
    assert drifted.iterations < solution.iterations <= drifted.iterations + 4


def test_closed_form_refuses_a_large_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    solver = solvers.build("closed_form")
    monkeypatch.setattr(type(solver), "max_nodes", 99)
    with pytest.raises(GraphError, match=r"at most 99 nodes; this graph has 100\. Use solver 'cg'"):
        solver.prepare(ring(100))


@pytest.mark.parametrize("alpha", [0.5, 0.99])
def test_spectral_is_exact_with_every_eigenvector_and_unconverged_without(alpha: float) -> None:
    graph, y = ring(60), spread_labels(60, 3)
    truth = exact(ring(60).to_scipy().toarray(), alpha, y.double().numpy())
    whole = run("spectral", graph, y, alpha=alpha, rank=60)
    assert whole.converged
    np.testing.assert_allclose(whole.scores, truth, rtol=0, atol=1e-4 * abs(truth).max())
    cut = run("spectral", graph, y, alpha=alpha, rank=5)
    assert not cut.converged
    assert cut.residual.min() > 0.1


# -- Poisson learning, from the paper's definition ------------------------------------------------


def poisson_by_definition(w: np.ndarray, labels: Tensor, classes: int) -> np.ndarray:
    """u [n, c] on a connected graph: L u = F, degree-weighted mean 0 (Calder et al., 2020)."""
    y = label_matrix(labels, classes).double().numpy()
    given = labels.numpy() >= 0
    f = np.where(given[:, None], y - y[given].mean(axis=0), 0)
    degree = w.sum(axis=1)
    u = np.linalg.pinv(np.diag(degree) - w) @ f
    return u - degree @ u / degree.sum()


def test_poisson_solves_its_equation_up_to_one_constant() -> None:
    random = np.random.default_rng(0)
    w = np.triu(random.random((30, 30)) * (random.random((30, 30)) < 0.3), 1)
    w = w + w.T
    labels = torch.full((30,), -1)
    labels[:5] = torch.tensor([0, 0, 1, 2, 2])
    solution = run("poisson", Graph.from_affinity(sp.csr_matrix(w)), label_matrix(labels, 3))
    u = poisson_by_definition(w, labels, 3)
    assert solution.converged
    offset = solution.scores.double().numpy() - u
    np.testing.assert_allclose(offset, offset.mean(), atol=1e-3 * abs(u).max())
    degree = w.sum(axis=1)
    np.testing.assert_allclose(offset.mean(), (degree @ abs(u)).sum() / degree.sum() / 3, rtol=1e-3)
    assert (solution.scores.numpy().argmax(axis=1) == u.argmax(axis=1)).all()


def test_poisson_by_component() -> None:
    """Two classes in one component, one alone in another, none in a third, an isolated label."""
    w = np.zeros((11, 11))
    for i, j in ((0, 1), (1, 2), (2, 3), (4, 5), (5, 6), (7, 8)):
        w[i, j] = w[j, i] = 1
    labels = torch.tensor([0, -1, -1, 1, 2, -1, -1, -1, -1, 1, -1])
    solution = run("poisson", Graph.from_affinity(sp.csr_matrix(w)), label_matrix(labels, 3))
    best = solution.scores.argmax(dim=1)
    assert best[[0, 1, 2, 3, 9]].tolist() == [0, 0, 1, 1, 1]
    torch.testing.assert_close(solution.scores[4:7], torch.tensor([[0.0, 0.0, 1.0]] * 3))
    assert not solution.scores[[7, 8, 10]].any()
    assert not solution.scores[:4, 2].any()


# -- memory --------------------------------------------------------------------------------------


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize("name", ["cg", "power", "chebyshev", "poisson", "torch_sparse"])
def test_a_solve_takes_no_more_memory_than_its_vectors(name: str) -> None:
    if missing := solvers.get(name).missing():
        pytest.skip(f"needs {', '.join(missing)}")
    n, classes = 300_000, 32  # 38 MB a vector of all classes
    graph, solver = ring_of_many(n), solvers.build(name, max_iterations=3)
    state = solver.prepare(graph)
    graph.renumbered, graph.components  # noqa: B018 - counted with the graph, not the solve
    before = resident()
    y = spread_labels(n, classes)
    peak, done = [before], threading.Event()

    def watch() -> None:
        while not done.is_set():
            peak.append(resident())
            time.sleep(0.0005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        solver.solve(state, y)
    finally:
        done.set()
        watcher.join()
    assert max(peak) - before <= 1.05 * solver.vectors * 4 * n * classes + 2**24


def ring_of_many(n: int) -> Graph:
    node = torch.arange(n, dtype=torch.int32)
    col = torch.stack([(node - 1) % n, (node + 1) % n], dim=1).sort(dim=1).values.reshape(-1)
    crow = torch.arange(0, 2 * n + 1, 2, dtype=torch.int32)
    return Graph(crow, col, torch.full((2 * n,), 0.5), torch.full((n,), 2.0))


def test_every_solver_declares_what_it_needs() -> None:
    for name in solvers.names():
        component = solvers.get(name)
        assert component.summary, name
        if not component.missing():
            built: Solver = solvers.build(name)
            assert built.vectors >= 4  # labels, scores, a product, a residual


def test_parameters_out_of_range_are_refused() -> None:
    for parameters in ({"alpha": 1.0}, {"alpha": -0.1}, {"tolerance": 0.0}, {"max_iterations": 0}):
        with pytest.raises(ValueError, match=next(iter(parameters))):
            solvers.get("cg").model(**parameters)
    with pytest.raises(RegistryError, match="Did you mean 'power'"):
        solvers.build("powre")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", sorted(SAME_SYSTEM | {"poisson", "spectral"}))
def test_on_a_gpu_as_on_the_cpu(name: str) -> None:
    if missing := solvers.get(name).missing():
        pytest.skip(f"needs {', '.join(missing)}")
    graph, y = ring(60), spread_labels(60, 3)
    there = run(name, graph.to("cuda"), y.to("cuda"))
    assert there.scores.device.type == "cuda"
    torch.testing.assert_close(there.scores.cpu(), run(name, graph, y).scores, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("count", [1, 3])
def test_poisson_where_all_labels_of_a_component_are_the_same_soft_one(count: int) -> None:
    graph = ring(12)
    y = torch.zeros(12, 2)
    y[:count] = torch.tensor([0.6, 0.4]) / count
    solver = Poisson()
    scores = solver.solve(solver.prepare(graph), y).scores
    expected = (torch.tensor([0.6, 0.4]) / count).expand(12, 2)
    torch.testing.assert_close(scores, expected)
    torch.testing.assert_close(solver.oracle(graph, y).float(), expected)
