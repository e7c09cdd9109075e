"""Propagation through files: the answer of memory, and what is finished is not done again."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from dlp_plugins._files.lock import Lock
from dlp_plugins.embeddings import stored, work
from dlp_plugins.embeddings.assembly import MappedGraph, assemble_mapped, find_components
from dlp_plugins.embeddings.clock import Clock, silent
from dlp_plugins.embeddings.features import EmbeddingFile, open_embeddings
from dlp_plugins.embeddings.memory import (
    MemoryBudgetError,
    estimate_memory,
    estimate_stored_memory,
    refiner_fits,
)
from dlp_plugins.embeddings.options import Options
from dlp_plugins.embeddings.run import prepare, propagate_file
from dlp_plugins.embeddings.stored import StoredPropagation
from dlp_plugins.embeddings.work import at_work, work_folder
from dlp_plugins.errors import DataError, RunFolderError, SaveError, UsageError
from dlp_plugins.graph import assemble
from dlp_plugins.graphs import _cells_cpu, _eight_bits
from dlp_plugins.graphs._compared import Whole
from dlp_plugins.graphs._upper_bound import principal_axes, shorten
from dlp_plugins.propagation import Propagator
from dlp_plugins.registry import affinities, graphs, solvers

N, CLASSES, COPIES = 1500, 5, 40
PLAIN = ["graph=cells", "graph.k=12", "transform=none", "refiner=none"]
STAGES = ["points", "cells", "lists", "graph", "scores-0-2", "scores-2-4", "scores-4-5"]


def points(n, seed=0):
    """Clusters with copies, a zero row and an island of its own far from the others."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, CLASSES, n)
    x = random.standard_normal((CLASSES, 16))[truth] + 0.7 * random.standard_normal((n, 16))
    x[5] = 0
    x[100 : 100 + COPIES] = x[50 : 50 + COPIES]
    return x.astype(np.float16), truth


@pytest.fixture
def folder(tmp_path):
    x, truth = points(N)
    np.save(tmp_path / "x.npy", x)
    labels = np.where(np.arange(N) % 30 == 0, truth, -1)
    labels[110] = (truth[60] + 1) % CLASSES  # a copy of point 60, of another class
    np.save(tmp_path / "y.npy", labels)
    return tmp_path


def run(folder, out, **options):
    options = {"settings": PLAIN, "device": "cpu", **options}
    return propagate_file(folder / "x.npy", folder / "y.npy", folder / out, **options)


@pytest.mark.parametrize(
    "settings",
    [
        PLAIN,
        [*PLAIN, "solver=chebyshev", "normalizer=sinkhorn", "affinity=local_scale"],
        ["graph=cells", "pseudo_labels.class_shares=estimate"],  # the default's transform, refiner
    ],
)
def test_the_same_as_in_memory(folder, settings):
    options = {"settings": settings, "unknown": True, "calibrated": True}
    expected = run(folder, "a.csv", **options)
    found = run(folder, "b.csv", on_disk=True, **options)
    assert torch.equal(found.labels, expected.labels)
    assert torch.equal(found.reached, expected.reached)
    for name in ("certainty", "margin", "probability", "unknown", "class_shares"):
        a, b = getattr(found, name), getattr(expected, name)
        torch.testing.assert_close(a, b, rtol=2e-3, atol=2e-4)
    same = ("edges", "components", "zero_vectors", "duplicates", "note")
    assert [getattr(found, x) for x in same] == [getattr(expected, x) for x in same]
    assert found.health.unreached == expected.health.unreached == 1
    assert found.duplicates == COPIES
    assert not work_folder(folder / "b.csv").exists()


def test_a_refiners_arrays_lie_in_files_where_memory_is_short(folder):
    expected = run(folder, "a.csv", settings=["graph=cells"], on_disk=True)
    files = folder / "x.npy", folder / "y.npy", folder / "b.csv"
    job = prepare(Options(*files, settings=["graph=cells"], device="cpu", on_disk=True))
    found = replace(job, refiner_in_memory=False).run()
    assert torch.equal(found.labels, expected.labels)
    assert (folder / "a.csv").read_bytes() == (folder / "b.csv").read_bytes()
    need = estimate_stored_memory(10**6, 64, 10, refines=True)
    arrays = 16 * 10**6 * 100
    assert not refiner_fits(need, 10**6, 100, need.refine + arrays - 1)
    assert refiner_fits(need, 10**6, 100, need.refine + arrays)


def test_probabilities_are_written_in_the_order_of_the_points(folder):
    for name, on_disk in (("a.csv", False), ("b.csv", True)):
        run(folder, name, probabilities=True, on_disk=on_disk, calibrated=False)
    a, b = (np.genfromtxt(folder / f"{x}.csv", delimiter=",", names=True) for x in "ab")
    for column in (f"probability_{c}" for c in range(CLASSES)):
        np.testing.assert_allclose(a[column], b[column], atol=1e-5)


# -- the graph ----------------------------------------------------------------------------------


def random_lists(m, k, seed=0):
    """Neighbours of each row: some are missing, some the point itself, some without weight."""
    random = np.random.default_rng(seed)
    indices = np.argsort(random.random((m, m)), axis=1)[:, :k].astype(np.int32)
    weights = random.random((m, k), dtype=np.float32) * (random.random((m, k)) < 0.9)
    indices[random.random((m, k)) < 0.1] = -1
    weights[(indices < 0) | (indices == np.arange(m)[:, None])] = 0
    weights[:7], weights[(indices < 7).nonzero()] = 0, 0  # nodes without an edge
    return indices, weights


def mapped(tmp_path, indices, weights, mutual, rows_at_once):
    with at_work(tmp_path / "o", {"width": 1}, resume=False) as here:
        with here.stage("graph") as stage:
            assemble_mapped(indices, weights, mutual, stage, rows_at_once)
        return MappedGraph.of(here.finished("graph"))


@pytest.mark.parametrize("mutual", [False, True])
@pytest.mark.parametrize("rows_at_once", [10_000, 300])
def test_the_graph_is_that_in_memory_in_every_entry(tmp_path, mutual, rows_at_once):
    indices, weights = random_lists(2000, 20)
    found = mapped(tmp_path, indices, weights, mutual, rows_at_once)
    expected = assemble(*map(torch.from_numpy, (indices, weights)), mutual)
    for name in ("crow_indices", "col_indices", "values", "degree"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    x = torch.rand(2000, 3)
    product = expected.matmul(x)
    torch.testing.assert_close(found.matmul(x), product)
    large = replace(found, crow_indices=found.crow_indices.long())  # as from 2^31 entries on
    torch.testing.assert_close(large.matmul(x), product)


@pytest.mark.parametrize("rows_at_once", [10_000, 64])
def test_components_are_those_in_memory(tmp_path, rows_at_once):
    indices, weights = random_lists(1000, 1, seed=3)  # one neighbour each: many components
    found = mapped(tmp_path, indices, weights, False, rows_at_once)
    expected = assemble(*map(torch.from_numpy, (indices, weights)), False).components
    pairs = torch.stack([found.components, expected]).unique(dim=1)
    assert pairs.shape[1] == len(expected.unique()) == len(found.components.unique()) > 50
    alone = find_components(np.zeros(4, np.int64), np.empty(0, np.int32), 2)
    assert sorted(alone) == [0, 1, 2]


def build(folder, propagator, budget=1e9):
    """The stored graph, with the lists that it was made of."""
    source, kept = open_embeddings(folder / "x.npy"), {}
    with at_work(folder / "o", {"width": 1}, resume=False) as here:
        store = StoredPropagation(here, source, budget)
        lists = store._lists(propagator, Clock(silent))
        kept = {name: np.array(lists.array(name)) for name in ("indices", "similarities")}
        built = store.build(propagator, None, Clock(silent))
    return built, kept


@pytest.mark.parametrize("affinity", ["inner_product", "local_scale", "binary"])
def test_the_files_graph_is_that_of_its_lists(folder, monkeypatch, affinity):
    monkeypatch.setattr(stored, "MOVED_ROWS", 500)
    monkeypatch.setattr(stored, "LEAST_BLOCK_ROWS", 700)
    propagator = replace(
        Propagator.default(), graph=graphs.build("cells", k=12), affinity=affinities.build(affinity)
    )
    built, kept = build(folder, propagator, budget=1.0)
    lists = stored.Neighbors(*(torch.from_numpy(kept[x]) for x in ("indices", "similarities")))
    expected = propagator.assemble_graph(lists)
    for name in ("crow_indices", "col_indices", "values", "degree"):
        assert torch.equal(getattr(built.graph, name), getattr(expected, name)), name


@pytest.mark.parametrize("kind", ["whole", "short", "8 bits"])
def test_the_lists_are_those_of_the_search_in_memory(folder, monkeypatch, kind):
    if kind == "8 bits" and not _eight_bits.available():
        pytest.skip("this processor multiplies no 8-bit integers")
    kinds = {
        "whole": Whole,
        "short": lambda v: shorten(v, principal_axes(v), 4),
        "8 bits": _eight_bits.rounded,
    }
    monkeypatch.setattr(_cells_cpu, "choose", lambda v, *_, **__: kinds[kind](v))
    propagator = replace(Propagator.default(), graph=graphs.build("cells", k=12))
    built, kept = build(folder, propagator)
    own = built.distinct.points
    rows = open_embeddings(folder / "x.npy").load()
    firsts = own.sort().values  # the distinct points as the search in memory gets them
    expected = propagator.graph.neighbors(rows[firsts])
    place = torch.searchsorted(firsts, own)
    ours = torch.from_numpy(kept["indices"]).long()
    theirs = firsts[expected.indices.long()][place]
    assert torch.equal(own[ours].sort(dim=1).values, theirs.sort(dim=1).values)


def test_the_solve_is_the_dense_solution(tmp_path):
    x, truth = points(300)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", np.where(np.arange(300) % 20 == 1, truth, -1))
    job = prepare(Options(
        tmp_path / "x.npy", tmp_path / "y.npy", tmp_path / "o.csv", device="cpu",
        settings=[*PLAIN, "solver.max_iterations=200"], on_disk=True,
    ))  # fmt: skip
    with at_work(job.out, job.work, resume=False) as here:
        store = StoredPropagation(here, job.source, job.budget)
        built = store.build(job.propagator, None, Clock(silent))
        labels = built.distinct.labels(job.given.labels)
        y = job.given.labels.new_zeros(len(labels), CLASSES).float()
        known = (labels >= 0).nonzero().squeeze(1)
        y[known, labels[known]] = 1 / torch.bincount(labels[known])[labels[known]]
        found = store.solve(0, CLASSES, lambda: job.propagator.solve(built.graph, y))
        expected = job.propagator.solver.oracle(built.graph, y)
        torch.testing.assert_close(found.scores.double(), expected, rtol=1e-4, atol=1e-6)


# -- going on -----------------------------------------------------------------------------------


class StoppedError(Exception):
    pass


def stop_after(monkeypatch, name):
    """The program ends as soon as that stage has."""
    begin = work.Work.stage

    def stage(self, this):
        if this == name:
            monkeypatch.setattr(work.Work, "stage", stop)
        return begin(self, this)

    def stop(self, this):
        raise StoppedError

    monkeypatch.setattr(work.Work, "stage", stage)


def two_at_a_time(monkeypatch):
    """Memory for two classes."""

    def narrow(*args):
        return replace(choose(*args), width=2)

    from dlp_plugins.embeddings import memory_fit

    choose = memory_fit.choose_chunks
    monkeypatch.setattr(memory_fit, "choose_chunks", narrow)


@pytest.mark.parametrize("name", STAGES[:-1])
def test_a_stage_that_is_finished_is_not_done_again(folder, monkeypatch, name):
    two_at_a_time(monkeypatch)
    run(folder, "a.csv", on_disk=True)
    with monkeypatch.context() as patch:
        stop_after(patch, name)
        with pytest.raises(StoppedError):
            run(folder, "b.csv", on_disk=True)
    done = []
    begin = work.Work.stage
    monkeypatch.setattr(work.Work, "stage", lambda self, x: (done.append(x), begin(self, x))[1])
    monkeypatch.setattr(EmbeddingFile, "load", lambda *_: pytest.fail("read again"))
    run(folder, "b.csv", resume=True)
    assert done == STAGES[STAGES.index(name) + 1 :]
    assert (folder / "a.csv").read_bytes() == (folder / "b.csv").read_bytes()
    assert not work_folder(folder / "b.csv").exists()


@pytest.fixture
def begun(folder, monkeypatch):
    """Work on b.csv that stopped once the lists were found."""
    with monkeypatch.context() as patch:
        stop_after(patch, "lists")
        with pytest.raises(StoppedError):
            run(folder, "b.csv", on_disk=True)
    return folder


def test_unfinished_work_is_neither_lost_nor_in_the_way(begun):
    with pytest.raises(UsageError, match=r"holds unfinished work\. Go on with --resume, or start"):
        run(begun, "b.csv", on_disk=True)
    with pytest.raises(UsageError, match="unfinished"):
        run(begun, "b.csv")  # nor in memory: the folder would stay behind
    run(begun, "b.csv", on_disk=True, overwrite=True)
    assert not work_folder(begun / "b.csv").exists()


def test_other_inputs_or_settings_are_refused(begun):
    with pytest.raises(UsageError, match=r"other inputs or settings \(settings\). Give the same"):
        run(begun, "b.csv", resume=True, settings=[*PLAIN, "solver.alpha=0.5"])
    os.utime(begun / "y.npy", (0, 0))
    with pytest.raises(UsageError, match=r"\(labels\)"):
        run(begun, "b.csv", resume=True)
    os.utime(begun / "x.npy", (0, 0))
    with pytest.raises(UsageError, match=r"\(embeddings, labels\)"):
        run(begun, "b.csv", resume=True)


def test_labels_that_other_ids_give_to_other_rows_are_refused(folder, monkeypatch):
    beside, names = folder / "x.ids.csv", [f"p{i}" for i in range(N)]
    beside.write_text("\n".join(["id", *names]))
    (folder / "named.csv").write_text("id,label\np0,a\np1,b\np2,a\n")
    request = {"settings": PLAIN, "device": "cpu"}
    files = folder / "x.npy", folder / "named.csv", folder / "b.csv"
    with monkeypatch.context() as patch:
        stop_after(patch, "lists")
        with pytest.raises(StoppedError):
            propagate_file(*files, **request, on_disk=True)
    beside.write_text("\n".join(["id", names[1], names[0], *names[2:]]))
    with pytest.raises(UsageError, match=r"\(labels\)"):
        propagate_file(*files, **request, resume=True)


def test_other_inputs_are_refused_where_another_process_began_in_between(begun):
    job = prepare(Options(
        begun / "x.npy", begun / "y.npy", begun / "b.csv", settings=PLAIN, device="cpu",
        resume=True,
    ))  # fmt: skip
    record = work_folder(begun / "b.csv") / work.RECORD
    record.write_text(record.read_text().replace("x.npy", "z.npy"))
    with pytest.raises(UsageError, match=r"\(embeddings\)"):
        job.run()


def test_nothing_is_left_of_bad_input(folder):
    x = np.load(folder / "x.npy")
    x[7, 3] = np.nan
    np.save(folder / "bad.npy", x)
    with pytest.raises(DataError):
        propagate_file(
            folder / "bad.npy", folder / "y.npy", folder / "b.csv", settings=PLAIN, device="cpu",
            on_disk=True,
        )  # fmt: skip
    assert not work_folder(folder / "b.csv").exists()


def test_a_table_made_in_memory_leaves_no_unfinished_work_behind(begun):
    run(begun, "b.csv", overwrite=True)
    assert not work_folder(begun / "b.csv").exists()


def test_a_table_made_in_memory_leaves_another_process_its_folder(begun):
    with Lock(work_folder(begun / "b.csv") / work.LOCK):
        run(begun, "b.csv", overwrite=True)
        assert (work_folder(begun / "b.csv") / "lists").is_dir()


def test_another_process_at_work_there_is_left_alone(begun):
    with (
        Lock(work_folder(begun / "b.csv") / work.LOCK),
        pytest.raises(RunFolderError, match="in use by process"),
    ):
        run(begun, "b.csv", resume=True)


def test_a_table_that_was_just_written_needs_no_overwrite(begun):
    (begun / "b.csv").write_text("written, but the folder was not removed yet")
    run(begun, "b.csv", resume=True)
    assert (begun / "b.csv").read_text().startswith("index,label")


def test_after_a_restart_of_the_machine_stages_are_done_again(begun, monkeypatch):
    monkeypatch.setattr(work, "boot", lambda: "another")
    begin, done = work.Work.stage, []
    monkeypatch.setattr(work.Work, "stage", lambda self, x: (done.append(x), begin(self, x))[1])
    run(begun, "b.csv", resume=True)
    assert done[:4] == STAGES[:4]


@pytest.mark.parametrize("text", ["{}", "[]", "no JSON"])
def test_damaged_facts_are_a_sentence(begun, text):
    (work_folder(begun / "b.csv") / "lists" / "facts.json").write_text(text)
    with pytest.raises(DataError, match="Start again with --overwrite"):
        run(begun, "b.csv", resume=True)


def test_a_damaged_folder_is_a_sentence(begun):
    with (work_folder(begun / "b.csv") / "lists" / "indices").open("ab") as file:
        file.write(b"more")
    with pytest.raises(DataError, match=r"damaged\. Start again with --overwrite"):
        run(begun, "b.csv", resume=True)
    (work_folder(begun / "b.csv") / "record.json").write_text("[]")
    with pytest.raises(DataError, match="damaged"):
        run(begun, "b.csv", resume=True)


def test_nothing_to_go_on_with_is_a_beginning(folder):
    run(folder, "b.csv", resume=True, on_disk=True)
    assert (folder / "b.csv").is_file()


def test_a_full_disk_keeps_what_is_finished(begun, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(SaveError, match=r"No space left.*go on with --resume"):
            run(begun, "b.csv", resume=True)
    left = {p.name for p in work_folder(begun / "b.csv").iterdir()}
    assert left == {"record.json", "points", "cells", "lists"}
    run(begun, "b.csv", resume=True)


# -- which way ----------------------------------------------------------------------------------


def test_files_are_used_where_memory_is_short(folder):
    need = estimate_memory(N, 16, 12, solvers.build("cg"), "cells")
    files_need = estimate_stored_memory(N, 16, 12, solvers.build("cg"))
    much = max(need.search, need.assemble)
    little = max(files_need.search, files_need.held + files_need.assemble)
    assert little < 0.95 * much
    enough, short = f"{int(1.1 * much)}B", f"{int((much + little) / 2)}B"
    files = folder / "x.npy", folder / "y.npy", folder / "o.csv"
    assert prepare(Options(*files, settings=PLAIN, device="cpu", memory=enough)).work is None
    assert prepare(Options(*files, settings=PLAIN, device="cpu", memory=short)).work is not None
    exact = [*PLAIN, "graph=exact"]
    with pytest.raises(MemoryBudgetError):
        prepare(Options(*files, settings=exact, device="cpu", memory=short))
    with pytest.raises(UsageError, match=r"needs --set graph=cells\."):
        prepare(Options(*files, settings=exact, device="cpu", on_disk=True))
    with pytest.raises(UsageError, match=r"needs no --robust\."):
        prepare(Options(*files, settings=PLAIN, device="cpu", on_disk=True, robust=True))


def test_a_folder_that_is_no_work_of_ours_stays(folder):
    own = work_folder(folder / "b.csv") / "thesis.txt"
    own.parent.mkdir()
    own.write_text("years")
    run(folder, "b.csv", overwrite=True)
    assert own.read_text() == "years"
    with pytest.raises(UsageError, match=r"holds thesis\.txt, which is not this program's"):
        run(folder, "b.csv", overwrite=True, on_disk=True)
    assert own.read_text() == "years"
    own.rename(own.with_name(".record.json.0123456789abcdef.tmp"))  # killed before its record was
    run(folder, "b.csv", overwrite=True, on_disk=True)
