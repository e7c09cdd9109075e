"""Descriptors, search, graph, solve and pseudo-labels on a CUDA device: how often it is waited for.

Graph assembly and solvers read values only through `read_host`, which is counted and replaced here:
a fake tensor has none. `fake_device` says what stands in for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from fake_device import CUDA, Crossings, fake_cuda, to_fake_cuda
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

from dlp_plugins import graph as graph_module
from dlp_plugins import registry
from dlp_plugins.graph import ALL, Graph, assemble
from dlp_plugins.graphs import _cells_torch
from dlp_plugins.graphs._blockwise import search_blockwise
from dlp_plugins.network import Network
from dlp_plugins.normalizers import sinkhorn
from dlp_plugins.propagation import equal_shares, label_matrix
from dlp_plugins.solvers import Solver, _conjugate_gradient, contract, poisson
from dlp_plugins.solvers.cg import ConjugateGradient
from dlp_plugins.training import evaluate

POINTS, DIM, CLASSES, K = 40, 8, 3, 5
# The CPU's libraries do the work of these; torch_sparse's kernels know no fake device.
ON_THE_CPU = {"amg", "closed_form", "spectral", "torch_sparse"}
SOLVES_OFTEN = {"cut"}  # hundreds of solves by conjugate gradient, each of which waits as `cg` does
TORCH_SOLVERS = sorted(set(registry.solvers.names()) - ON_THE_CPU - SOLVES_OFTEN)
ACTIVE = {"cg", "poisson"}  # look at which columns are active, the others at whether all are done
STARTS_FROM_ANOTHER = {"poisson_mbo"}
SHORTER = {"poisson_mbo": {"max_iterations": 2}}  # a round is many operations, slow on fake tensors
ITERATIONS = 20
# In a solve that never converges: every fifth iteration, what has drifted, the largest count, and
# the judgement of converged and of limited by precision.
MOST_READS = ITERATIONS // contract.CHECK_EVERY + 4


class Reads:
    """In place of `read_host`: counts, and answers.

    Numbers are all `number`. The first `true` masks are True throughout, the others False: a solver
    finds every column active so often, and then none that has drifted or is within its goal.
    """

    def __init__(self, number: int = 20, true: int = 0) -> None:
        self.count, self.number, self.true = 0, number, true

    def __call__(self, x: Tensor) -> np.ndarray:
        self.count += 1
        assert x.device == CUDA
        if x.dtype != torch.bool:
            return np.full(x.shape, self.number, dtype=np.int64)
        self.true -= 1
        return np.full(x.shape, self.true >= 0)


@contextmanager
def reading(reads: Reads) -> Iterator[Reads]:
    with ExitStack() as patches:
        modules = graph_module, contract, _cells_torch, _conjugate_gradient, poisson, sinkhorn
        for module in modules:
            patches.enter_context(mock.patch.object(module, "read_host", reads))
        yield reads


def product(graph: Graph, x: Tensor, rows: slice = ALL) -> Tensor:
    """In place of the CSR product, whose tensors ask for the driver: shapes, dtypes and devices."""
    n = graph.num_nodes
    assert (graph.crow_indices.shape, graph.values.shape) == ((n + 1,), graph.col_indices.shape)
    assert graph.crow_indices.dtype == graph.col_indices.dtype == torch.int32
    assert x.shape[0] == n
    assert x.dtype == graph.values.dtype == torch.float32
    assert x.device == graph.values.device == graph.col_indices.device == CUDA
    return torch.zeros_like(x)[rows]


class OneComponent:
    """As SciPy leaves it, on the CPU; its move to the device is a known copy."""

    def to(self, device: torch.device) -> Tensor:
        return torch.zeros(POINTS, dtype=torch.int64, device=device)

    def max(self) -> int:
        return 0


@contextmanager
def fake_graph() -> Iterator[Graph]:
    """A graph of 40 points on the fake device, with the stand-in product and one component."""
    with (
        mock.patch.object(Graph, "matmul", product),
        mock.patch.object(Graph, "components", OneComponent()),
        fake_cuda(),
    ):
        index = torch.zeros(60, dtype=torch.int32, device=CUDA)
        crow = torch.zeros(POINTS + 1, dtype=torch.int32, device=CUDA)
        yield Graph(crow, index, torch.rand(60, device=CUDA), torch.rand(POINTS, device=CUDA))


def test_the_describing_pass_copies_nothing() -> None:
    with fake_cuda():
        backbone = registry.backbones.build("small_cnn", input_shape=(3, 8, 8), width=4)
        network = to_fake_cuda(Network(backbone, CLASSES))
        images: Any = SimpleNamespace(
            source=range(8),
            device=CUDA,
            batches=lambda plan: (torch.zeros(len(p), 3, 8, 8, device=CUDA) for p in plan),
        )
        with Crossings() as crossings, torch.autocast("cuda", torch.bfloat16):
            found = evaluate.describe(network, images, lambda x: x)
            likely = evaluate.predict(network, images, lambda x: x)
    assert crossings.found == []
    assert (found.dtype, found.device, found.shape) == (torch.float32, CUDA, (8, 8))
    assert (likely.dtype, likely.device, likely.shape) == (torch.float32, CUDA, (8, CLASSES))


@pytest.mark.parametrize("entries", [2**28, 7 * POINTS])
def test_the_search_waits_for_nothing(entries: int) -> None:
    with fake_cuda(), Crossings() as crossings:
        found = search_blockwise(torch.rand(POINTS, DIM, device=CUDA), K, entries)
    assert crossings.found == []
    assert (found.indices.dtype, found.indices.shape) == (torch.int32, (POINTS, K))
    assert (found.similarities.dtype, found.indices.device) == (torch.float32, CUDA)


def test_the_search_by_cells_waits_once_for_their_sizes() -> None:
    with fake_cuda(), reading(Reads(number=POINTS // 4)) as reads, Crossings() as crossings:
        points = torch.rand(POINTS, DIM, device=CUDA)
        found = _cells_torch.search_cells(points, 2, size=POINTS // 4, probes=3, seed=0)
    assert reads.count == 1
    # what k-means trains on, and the cells in the order of their sizes: once each, without a wait
    assert crossings.found == ["aten._to_copy.default"] * 2
    assert (found.indices.dtype, found.indices.shape) == (torch.int32, (POINTS, 2))
    assert (found.similarities.dtype, found.similarities.shape) == (torch.float32, (POINTS, 2))
    assert {t.device for t in vars(found).values()} == {CUDA}


@pytest.mark.parametrize("mutual", [False, True])
def test_the_graph_is_assembled_with_a_single_read(mutual: bool) -> None:
    with fake_cuda(), reading(Reads(number=60)) as reads:
        indices = torch.zeros(POINTS, K, dtype=torch.int32, device=CUDA)
        weights = torch.rand(POINTS, K, device=CUDA)
        with Crossings() as crossings:
            graph = assemble(indices, weights, mutual)
    assert crossings.found == []
    assert reads.count == 1
    assert graph.num_entries == 60
    assert (graph.crow_indices.dtype, graph.crow_indices.shape) == (torch.int32, (POINTS + 1,))
    assert (graph.values.dtype, graph.degree.dtype) == (torch.float32, torch.float32)
    assert {t.device for t in vars(graph).values() if isinstance(t, Tensor)} == {CUDA}


def solve(solver: Solver, reads: Reads, guess: bool = False) -> tuple[Any, list[str]]:
    with fake_graph() as graph, reading(reads):
        labels = torch.zeros(POINTS, dtype=torch.int64, device=CUDA)
        with Crossings() as crossings:
            y = label_matrix(labels, CLASSES)
            initial = torch.rand(POINTS, CLASSES, device=CUDA) if guess else None
            solution = solver.solve(solver.prepare(graph), y, initial)
        assert solution.scores.device == solution.residual.device == CUDA
        assert solution.scores.dtype == torch.float32
        return solution, crossings.found


@pytest.mark.parametrize("guess", [False, True])
@pytest.mark.parametrize("name", TORCH_SOLVERS)
def test_a_solve_reads_every_few_iterations_through_one_function(name: str, guess: bool) -> None:
    solver = registry.solvers.build(name, **{"max_iterations": ITERATIONS, **SHORTER.get(name, {})})
    reads = Reads(true=ITERATIONS // contract.CHECK_EVERY if name in ACTIVE else 0)
    _, crossings = solve(solver, reads, guess)
    assert crossings == []
    solves = 2 if name in STARTS_FROM_ANOTHER else 1
    assert 1 <= reads.count <= solves * MOST_READS


class Peeks(ConjugateGradient):
    """Conjugate gradient that reads the device by itself."""

    def solve(self, state: Any, labels: Tensor, initial: Tensor | None = None) -> Any:
        found = super().solve(state, labels, initial)
        self.peek(labels)
        return found

    peek: Callable[[Tensor], Any]


@pytest.mark.parametrize(
    "peek",
    [lambda y: y.sum().item(), lambda y: y[y > 0], lambda y: y.nonzero(), lambda y: bool(y.any())],
    ids=["item", "mask", "nonzero", "if"],
)
def test_a_solver_that_reads_by_itself_is_found(peek: Callable[[Tensor], Any]) -> None:
    solver = Peeks(max_iterations=2)
    object.__setattr__(solver, "peek", peek)
    with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
        solve(solver, Reads(true=1))


@pytest.mark.parametrize(
    "peek",
    [lambda y: y.cpu(), lambda y: torch.tensor([0.99], device=CUDA), lambda y: y[torch.arange(2)]],
    ids=["cpu", "host data", "CPU index"],
)
def test_a_solver_that_copies_is_found(peek: Callable[[Tensor], Any]) -> None:
    solver = Peeks(max_iterations=2)
    object.__setattr__(solver, "peek", peek)
    assert solve(solver, Reads(true=1))[1] != []


def test_a_solver_that_reads_too_often_is_found() -> None:
    solver = registry.solvers.build("cg", max_iterations=ITERATIONS)
    reads = Reads(true=ITERATIONS)
    with mock.patch.object(_conjugate_gradient, "checks", return_value=1):
        solve(solver, reads)
    assert reads.count > MOST_READS


def names(kind: str) -> list[str]:
    return registry.of_kind(kind).names()


@pytest.mark.parametrize(
    ("kind", "name"),
    [(k, n) for k in ("affinities", "weighters", "normalizers", "balancers") for n in names(k)],
)
def test_the_other_components_wait_for_nothing(kind: str, name: str) -> None:
    made = registry.of_kind(kind).build(name)
    with fake_cuda(), Crossings() as crossings:
        rows = torch.rand(POINTS, CLASSES, device=CUDA)
        shape: tuple[int, ...] = (POINTS,)
        match kind:
            case "affinities":
                indices = torch.zeros(POINTS, K, dtype=torch.int32, device=CUDA)
                similarities = torch.rand(POINTS, K, device=CUDA)
                found = made.weights(graph_module.Neighbors(indices, similarities))
                shape = (POINTS, K)
            case "weighters":
                found = made.certainty(rows)
            case "normalizers":
                shares, unlabeled = equal_shares(CLASSES, CUDA), rows[:, 0] > 0
                with reading(Reads()) as reads:
                    total = made.fit(lambda: [(rows, unlabeled)], shares)
                assert reads.count == (
                    made.passes // contract.CHECK_EVERY if name == "sinkhorn" else 0
                )
                found = made.apply(rows, total, shares)
                shape = (POINTS, CLASSES)
            case "balancers":
                found = made.class_weights(torch.zeros(CLASSES, dtype=torch.int64, device=CUDA))
                shape = (CLASSES,)
    assert crossings.found == []
    assert (found.shape, found.dtype, found.device) == (shape, torch.float32, CUDA)
