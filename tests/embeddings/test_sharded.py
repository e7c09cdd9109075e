"""Rows of the graph shared among processes, here threads: the answer of one with all of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from in_threads import in_threads

from dlp_plugins.embeddings.chunked import propagate_chunked
from dlp_plugins.embeddings.features import open_embeddings
from dlp_plugins.embeddings.memory import (
    ClassChunks,
    MemoryBudgetError,
    choose_chunks,
    estimate_sharded_memory,
)
from dlp_plugins.embeddings.options import Options
from dlp_plugins.embeddings.run import prepare, propagate_file
from dlp_plugins.embeddings.sharded import propagate_sharded, solve_rows
from dlp_plugins.embeddings.sharded_graph import assemble_rows
from dlp_plugins.errors import FeatureError, UsageError
from dlp_plugins.graph import assemble
from dlp_plugins.processes.rows import RowExchange
from dlp_plugins.propagation import Propagator
from dlp_plugins.registry import EMBEDDINGS_ALPHA
from dlp_plugins.solvers.chebyshev import Chebyshev
from dlp_plugins.solvers.contract import CHECK_EVERY

N, CLASSES, COPIES = 1500, 5, 40
# every cell is probed, so that the search is exact and the same whatever the cells
PARTS = {
    "graph": "cells", "solver": "chebyshev", "refiner": "none", "transform": "none",
    "normalizer": "class_mass", "k": 12, "size": 64, "probes": 100, "alpha": EMBEDDINGS_ALPHA,
}  # fmt: skip
SIZES = (1, 2, 3)


def points(n=N, seed=0):
    """Clusters with copies across the shares, a zero row and an island far from the others."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, CLASSES, n)
    x = random.standard_normal((CLASSES, 16))[truth] + 0.7 * random.standard_normal((n, 16))
    x = np.pad(x, ((0, 0), (0, 1)))
    x[:30] = 0.01 * x[:30] + 9 * np.eye(17)[16]  # no label there
    x[35] = 0
    x[n - COPIES :] = x[50 : 50 + COPIES]
    labels = np.where((np.arange(n) % 30 == 0) & (np.arange(n) >= 40), truth, -1)
    labels[n - COPIES] = (truth[50] + 1) % CLASSES  # a copy of a point, of another class
    labels[50] = truth[50]
    return x.astype(np.float16), torch.from_numpy(labels)


def random_lists(m, k):
    """Neighbours of each row, of which some are missing and some have no weight; a few islands."""
    random = np.random.default_rng(0)
    block = np.arange(m) // 20 % 7  # of seven islands, one at least in every process
    indices = np.empty((m, k), np.int32)
    for i in range(m):
        indices[i] = random.choice(np.flatnonzero((block == block[i]) & (np.arange(m) != i)), k)
    indices = np.where(random.random((m, k)) < 0.1, -1, indices).astype(np.int32)
    for row in indices:  # a list holds nobody twice
        row[np.setdiff1d(np.arange(k), np.unique(row, return_index=True)[1])] = -1
    weights = random.random((m, k), dtype=np.float32) * (random.random((m, k)) < 0.9)
    weights[indices < 0] = 0
    weights[:3] = 0
    weights[(indices >= 0) & (indices < 3)] = 0  # nodes without an edge
    return indices, weights


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_rows_are_fetched_in_the_order_asked_for(size):
    values = torch.arange(40.0).reshape(20, 2)

    def work(processes):
        shares = processes.shares(20)
        own = values[shares[processes.rank]]
        random = torch.Generator().manual_seed(processes.rank)
        for wanted in (torch.randint(20, (15,), generator=random), torch.tensor([3, 4, 19]),
                       torch.empty(0, dtype=torch.int64)):  # fmt: skip
            found = RowExchange.plan(processes, shares, wanted).fetch(own)
            assert torch.equal(found, values[wanted])

    in_threads(size, work)


@pytest.mark.parametrize("mutual", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_products_with_shared_rows_are_those_of_the_dense_matrix(size, mutual):
    m, k = 280, 6
    indices, weights = random_lists(m, k)
    whole = assemble(*map(torch.from_numpy, (indices, weights)), mutual)
    dense = torch.from_numpy(whole.to_scipy().toarray()).double()
    x = torch.randn(m, 3, generator=torch.Generator().manual_seed(0))

    def work(processes):
        mine = processes.share(m)
        rows = assemble_rows(indices[mine], weights[mine], mutual, processes, m)
        assert rows.num_entries == whole.num_entries
        assert len(rows.own.values) == int((dense[mine] > 0).sum())
        assert torch.equal(rows.own.degree, whole.degree[mine])
        product = rows.matmul(x[mine])
        torch.testing.assert_close(product.double(), (dense @ x.double())[mine])
        torch.testing.assert_close(rows.norms(x[mine]), x.norm(dim=0))
        return product, rows.components

    found = in_threads(size, work)
    torch.testing.assert_close(torch.cat([p for p, _ in found]), whole.matmul(x))
    for _, component in found:
        pairs = torch.stack([component, whole.components])
        count = int(whole.components.max()) + 1
        assert pairs.unique(dim=1).shape[1] == count == int(component.max()) + 1


@pytest.mark.parametrize("size", SIZES)
def test_the_solve_is_the_dense_one(size):
    m, alpha = 280, 0.95
    indices, weights = random_lists(m, 6)
    whole = assemble(*map(torch.from_numpy, (indices, weights)))
    wn = torch.from_numpy(whole.to_scipy().toarray()).double()
    y = torch.zeros(m, 4)
    y[torch.arange(0, m, 9), torch.arange(0, m, 9) % 3] = 0.1  # the last class has no label
    expected = torch.linalg.solve(torch.eye(m) - alpha * wn, y.double())
    solver = Chebyshev(alpha=alpha, tolerance=1e-6)
    alone = solver.solve(whole, y)

    def work(processes):
        mine = processes.share(m)
        rows = assemble_rows(indices[mine], weights[mine], False, processes, m)
        made = replace(Propagator.default(), solver=solver, processes=processes)
        return solve_rows(made, rows, y[mine])

    found = in_threads(size, work)
    scores = torch.cat([solution.scores for solution in found])
    torch.testing.assert_close(scores.double(), expected, rtol=1e-5, atol=1e-5)
    for solution in found:
        assert solution.converged or solution.limited_by_precision
        assert abs(solution.iterations - alone.iterations) <= CHECK_EVERY
        assert (solution.residual < 1e-5).all()


@pytest.mark.parametrize("more", [{}, {"transform": "center", "affinity": "binary"}])
def test_the_same_as_one_process_with_the_whole_graph(more, tmp_path):
    x, labels = points()
    np.save(tmp_path / "x.npy", x)
    source = open_embeddings(tmp_path / "x.npy")
    propagator = Propagator.default(**PARTS | more)
    options = {"scratch": tmp_path, "unknown": True}
    expected = propagate_chunked(
        propagator, source.load, labels, CLASSES, ClassChunks(CLASSES, False, 0), **options
    )
    probabilities = expected.probabilities.all()
    assert expected.health.unreached > 20
    assert expected.duplicates == COPIES
    for size in SIZES:

        def work(processes):
            made = replace(propagator, processes=processes)
            chunks = ClassChunks(2, True, 0)
            found = propagate_sharded(
                made, source, labels, CLASSES, chunks, calibrated=True, **options
            )
            return found, found.probabilities.all()

        for found, p in in_threads(size, work):
            assert torch.equal(found.labels, expected.labels)
            assert torch.equal(found.reached, expected.reached)
            torch.testing.assert_close(p, probabilities, rtol=0, atol=1e-5)
            for name in ("certainty", "margin", "unknown"):
                torch.testing.assert_close(
                    getattr(found, name), getattr(expected, name), rtol=0, atol=1e-5
                )
            same = ("edges", "components", "zero_vectors", "duplicates", "note")
            assert [getattr(found, x) for x in same] == [getattr(expected, x) for x in same]
            wanted = replace(expected.health, residual=None, iterations=0)
            assert replace(found.health, residual=None, iterations=0) == wanted
            assert found.calibration.reason
            assert found.probability.shape == (N,)


def test_no_process_reads_all_rows_at_once(tmp_path, monkeypatch):
    from dlp_plugins.embeddings.sharded_points import FileRows

    x, labels = points(4000)
    np.save(tmp_path / "x.npy", x)
    source = open_embeddings(tmp_path / "x.npy")
    taken = []
    read = FileRows.__getitem__

    def counted(self, chosen):
        found = read(self, chosen)
        taken.append(len(found))
        return found

    monkeypatch.setattr(FileRows, "__getitem__", counted)
    propagator = Propagator.default(**PARTS | {"probes": 4})

    def work(processes):
        made = replace(propagator, processes=processes)
        chunks = ClassChunks(CLASSES, False, 0)
        propagate_sharded(made, source, labels, CLASSES, chunks, scratch=tmp_path)

    in_threads(3, work)
    assert max(taken) <= 4000 / 3


def test_the_table_of_one_process_without_a_launcher(tmp_path):
    x, labels = points()
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", labels.numpy())
    files = tmp_path / "x.npy", tmp_path / "y.npy"
    settings = ["graph.size=64", "graph.probes=100", "transform=none"]
    options = {"settings": settings, "probabilities": True, "calibrated": False}
    parts = ["graph=cells", "solver=chebyshev", "refiner=none"]
    propagate_file(*files, tmp_path / "a.csv", **options, shard_rows=True)
    options["settings"] = [*parts, *settings]
    propagate_file(*files, tmp_path / "b.csv", device="cpu", **options)
    a, b = (np.genfromtxt(tmp_path / name, delimiter=",", skip_header=1) for name in
            ("a.csv", "b.csv"))  # fmt: skip
    np.testing.assert_allclose(a, b, atol=1e-5)


# -- refused ------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    x, labels = points(200)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", x=x)
    np.save(tmp_path / "y.npy", labels.numpy())
    (tmp_path / "soft.csv").write_text("index,label,weight\n60,a,0.5\n90,b,1\n")
    return tmp_path


@pytest.mark.parametrize(
    ("needs", "options"),
    [
        ("--set solver=chebyshev, --set refiner=none", ["solver=cg", "refiner=discriminant"]),
        ("--set graph=cells", ["graph=exact"]),
        ("--set affinity=inner_product", ["affinity=local_scale"]),
        ("--set normalizer=class_mass", ["normalizer=sinkhorn"]),
        ("class shares other than 'estimate'", ["pseudo_labels.class_shares=estimate"]),
    ],
)
def test_what_cannot_be_shared_is_refused_in_one_sentence(needs, options, files):
    with pytest.raises(UsageError) as refused:
        prepare(Options(files / "x.npy", files / "y.npy", None, settings=options, shard_rows=True))
    assert str(refused.value) == f"--shard-rows needs {needs}."


def test_files_that_cannot_be_shared_are_refused(files):
    with pytest.raises(UsageError, match=r"needs embeddings in a \.npy file\."):
        prepare(Options(files / "x.npz", files / "y.npy", None, shard_rows=True))
    with pytest.raises(UsageError, match=r"needs labels of one class and no weight\."):
        prepare(Options(files / "x.npy", files / "soft.csv", None, shard_rows=True))


@pytest.mark.parametrize(
    "option",
    [
        {"prior": "p.npy"}, {"auto": True}, {"robust": True}, {"multi_label": True},
        {"on_disk": True}, {"resume": True}, {"save_index": "i.safetensors"},
        {"start": "sklearn.linear_model.LogisticRegression"}, {"prototypes": "c.npy"},
    ],
    ids=lambda o: next(iter(o)),
)  # fmt: skip
def test_options_that_do_not_go_with_it_are_refused(option, files):
    name = next(iter(option)).replace("_", "-")
    with pytest.raises(UsageError) as refused:
        prepare(Options(files / "x.npy", files / "y.npy", None, shard_rows=True, **option))
    assert str(refused.value) == f"--{name} does not go with --shard-rows; leave it out."


def test_too_little_memory_names_more_processes(files):
    two = estimate_sharded_memory(10_000, 64, 30, Chebyshev(), 2)
    with pytest.raises(MemoryBudgetError) as refused:
        choose_chunks(two, 10_000, 5, 10_000, processes=2)
    assert "in each process for 10,000 points" in str(refused.value)
    assert str(refused.value).endswith("(--set graph.k), or more processes.")


def test_the_estimate_falls_with_the_number_of_processes():
    need = [estimate_sharded_memory(10**7, 64, 30, Chebyshev(), size) for size in (1, 2, 8)]
    for name in ("search", "assemble", "graph", "column"):
        first, second, last = (getattr(memory, name) for memory in need)
        assert first > second > last


def test_rows_that_are_not_finite_are_counted_in_all_shares(tmp_path):
    x, labels = points(200)
    x[[20, 30, 190], 3] = np.nan, np.inf, np.nan
    np.save(tmp_path / "x.npy", x)
    source = open_embeddings(tmp_path / "x.npy")
    propagator = Propagator.default(**PARTS)

    def work(processes):
        made = replace(propagator, processes=processes)
        chunks = ClassChunks(CLASSES, False, 0)
        propagate_sharded(made, source, labels, CLASSES, chunks, scratch=tmp_path)

    with pytest.raises(FeatureError, match=r"3 of 200 rows hold NaN .* the first is row 20 "):
        in_threads(2, work)


def test_fewer_points_than_processes_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.tile(np.eye(2, 4), (5, 1)))
    source = open_embeddings(tmp_path / "x.npy")
    labels = torch.tensor([0, 1] + 8 * [-1])
    propagator = Propagator.default(**PARTS)

    def work(processes):
        made = replace(propagator, processes=processes)
        chunks = ClassChunks(2, False, 0)
        return propagate_sharded(made, source, labels, 2, chunks, scratch=tmp_path).labels.tolist()

    assert in_threads(2, work) == [[0, 1] * 5] * 2
    with pytest.raises(UsageError, match=r"2 distinct points, fewer than the 3 processes"):
        in_threads(3, work)
