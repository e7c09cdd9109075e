"""`dlp propagate`: the table, the summary, bounded memory, and every kind of bad input."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from dlp_cli.app import app
from typer.testing import CliRunner

from dlp_plugins.embeddings import scores
from dlp_plugins.embeddings.chunked import propagate_chunked
from dlp_plugins.embeddings.memory import (
    ClassChunks,
    MemoryBudgetError,
    choose_chunks,
    estimate_memory,
)
from dlp_plugins.errors import DlpError, LabelError, SaveError, UsageError
from dlp_plugins.propagation import Propagator, label_matrix, propagate
from dlp_plugins.registry import solvers
from dlp_plugins.solvers.contract import rounding

N, D, C = 600, 8, 5
# The paper's components in place of the defaults for embeddings.
PAPER = [
    f"--set={setting}"
    for setting in (
        "transform=none", "graph.k=50", "solver.alpha=0.99", "normalizer=clamp", "refiner=none",
    )
]  # fmt: skip


@pytest.fixture
def data(tmp_path):
    """Five clusters on the sphere; a tenth of the points labelled. Returns (x, truth, few)."""
    rng = np.random.default_rng(0)
    truth = rng.integers(C, size=N)
    x = 2.5 * np.eye(D)[truth] + 0.5 * rng.standard_normal((N, D))
    x = x.astype(np.float32)
    few = np.where(np.arange(N) % 10 == 0, truth, -1)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", few)
    return x, truth, few


def dlp(tmp_path, *options, embeddings="x.npy", labels="y.npy", out="out.csv"):
    """Run `dlp propagate` in this process; a DlpError comes through."""
    arguments = ["propagate", str(tmp_path / embeddings), "--labels", str(tmp_path / labels)]
    arguments += ["--out", str(tmp_path / out), "--device", "cpu", *options]
    done = CliRunner().invoke(app, arguments)
    if isinstance(done.exception, DlpError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def table(tmp_path, name="out.csv"):
    with (tmp_path / name).open(newline="") as file:
        return list(csv.DictReader(file))


def expected(x, few, **parameters):
    return propagate(
        torch.from_numpy(x), torch.from_numpy(few), C, on_unconverged="ignore", **parameters
    )


# -- what comes out -----------------------------------------------------------------------------


def test_the_table_holds_what_propagate_gives(tmp_path, data):
    x, truth, few = data
    output = dlp(
        tmp_path, *PAPER, "--probabilities", "--set", "graph.k=12", "--set", "solver.alpha=0.9"
    )
    rows = table(tmp_path)
    pseudo = expected(x, few, k=12, alpha=0.9)
    assert list(rows[0]) == [
        "index",
        "label",
        "certainty",
        "margin",
        "probability",
        "reached",
        *(f"probability_{i}" for i in range(C)),
    ]
    assert [int(r["label"]) for r in rows] == pseudo.labels.tolist()
    assert (pseudo.labels.numpy() == truth).mean() > 0.95
    np.testing.assert_allclose([float(r["certainty"]) for r in rows], pseudo.certainty, atol=1e-4)
    p = np.array([[float(r[f"probability_{i}"]) for i in range(C)] for r in rows])
    np.testing.assert_allclose(p, pseudo.probabilities, atol=1e-4)
    others = p.copy()
    others[range(N), pseudo.labels] = 0
    margin = p[range(N), pseudo.labels] - others.max(axis=1)
    np.testing.assert_allclose([float(r["margin"]) for r in rows], margin, atol=1e-5)
    for line in (r"points +600", r"labelled +60", r"classes +5", r"points no label reaches +0"):
        assert re.search(line, output), output


def test_a_solver_by_name_and_other_weighters(tmp_path, data):
    x, _, few = data
    chosen = ["solver=closed_form", "solver.alpha=0.99", "weighter=margin", "graph.k=9"]
    dlp(tmp_path, *PAPER, *(f"--set={setting}" for setting in chosen))
    exact = expected(x, few, k=9, max_iterations=500)
    rows = table(tmp_path)
    assert [int(r["label"]) for r in rows] == exact.labels.tolist()
    margin = torch.tensor([float(r["margin"]) for r in rows])
    unlabeled = torch.from_numpy(few < 0)
    certainty = torch.tensor([float(r["certainty"]) for r in rows])[unlabeled]
    torch.testing.assert_close(
        certainty, margin[unlabeled] / margin[unlabeled].max(), atol=1e-5, rtol=1e-4
    )


def test_names_are_written_back_in_both_formats(tmp_path, data):
    _, _, few = data
    names = np.array(["ant", "bee", "cat, tabby", "dog", "élan"])
    with (tmp_path / "y.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([[names[i]] if i >= 0 else [""] for i in few])
    dlp(tmp_path, "--probabilities", labels="y.csv")
    dlp(tmp_path, "--probabilities", labels="y.csv", out="out.parquet")
    dlp(tmp_path, labels="y.npy", out="numbers.parquet")
    rows, parquet = table(tmp_path), pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [r["label"] for r in rows] == [r["label"] for r in parquet]
    numbers = pq.read_table(tmp_path / "numbers.parquet")
    assert numbers.column_names == [
        "index", "label", "certainty", "margin", "probability", "reached"
    ]  # fmt: skip
    assert names[numbers["label"].to_numpy()].tolist() == [r["label"] for r in parquet]
    for name in ["certainty", "margin", *(f"probability_{n}" for n in names)]:
        np.testing.assert_allclose(
            [float(r[name]) for r in rows], [r[name] for r in parquet], atol=1e-6
        )


def test_an_existing_table_is_kept_unless_told(tmp_path, data):
    (tmp_path / "out.csv").write_text("precious")
    with pytest.raises(UsageError, match=r"exists already\. Add --overwrite"):
        dlp(tmp_path)
    assert (tmp_path / "out.csv").read_text() == "precious"
    dlp(tmp_path, "--overwrite")
    assert len(table(tmp_path)) == N


def test_a_failed_write_leaves_the_old_table_and_nothing_else(tmp_path, data, monkeypatch):
    (tmp_path / "out.csv").write_text("precious")
    before = sorted(os.listdir(tmp_path))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dlp_plugins.embeddings.table._write_csv", full)
    with pytest.raises(SaveError, match="No space left on device"):
        dlp(tmp_path, "--overwrite")
    assert (tmp_path / "out.csv").read_text() == "precious"
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.commands
def test_as_a_command_with_progress_on_stderr_and_the_summary_on_stdout(tmp_path, data):
    command = [sys.executable, "-m", "dlp_cli", "propagate", str(tmp_path / "x.npy")]
    command += ["--labels", str(tmp_path / "y.npy"), "--out", str(tmp_path / "out.csv")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def run():
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    done = run()
    assert done.returncode == 0, done.stderr
    phases = [line.partition(":")[0] for line in done.stderr.splitlines()]
    assert phases == [
        "Reading embeddings", "Rescaling embeddings", "Finding neighbours", "Building the graph",
        "Spreading labels", "Refining labels", "Finding probabilities", "Weighing",
        "Writing the table",
    ]  # fmt: skip
    assert "certainty, quartiles" in done.stdout
    again = run()
    assert again.returncode == 2
    assert again.stderr.startswith("error: ")
    assert "Traceback" not in again.stderr


# -- bounded memory -----------------------------------------------------------------------------


@pytest.mark.parametrize("iterations", [8, 20])
@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("width", [1, 2, 3, 5])
def test_chunks_do_not_change_the_answer(tmp_path, data, monkeypatch, width, on_disk, iterations):
    x, _, few = data
    monkeypatch.setattr(scores, "BLOCK_ENTRIES", 500)  # several blocks of rows
    unit = torch.nn.functional.normalize(torch.from_numpy(x))
    propagator = Propagator.default(k=12, max_iterations=iterations)
    reported = []
    outcome = propagate_chunked(
        propagator, lambda tick: unit, torch.from_numpy(few), C,
        ClassChunks(width, on_disk, 0), scratch=tmp_path,
        progress=lambda phase, done, total: reported.append((phase, done)),
    )  # fmt: skip
    pseudo = expected(x, few, k=12, max_iterations=iterations)
    assert (outcome.labels == pseudo.labels).all()
    torch.testing.assert_close(outcome.certainty, pseudo.certainty, atol=1e-4, rtol=1e-4)
    assert outcome.counts.tolist() == torch.bincount(pseudo.labels, minlength=C).tolist()
    assert outcome.health.iterations == pseudo.health.iterations == iterations
    # Chunks sum in another order, which shows as a few roundings of the scores: 3e-4 of the
    # residual of 0.06 after 8 iterations, up to a third of that of 5e-5 after 20.
    size = label_matrix(torch.from_numpy(few), C).norm(dim=0)
    few_roundings = float((4 * rounding(pseudo.scores) / size).max())
    assert outcome.health.residual == pytest.approx(pseudo.health.residual, abs=few_roundings)
    assert ("solve", min(width, C)) in reported
    assert sorted(os.listdir(tmp_path)) == ["x.npy", "y.npy"]  # no scratch file is left


def test_a_solver_that_needs_all_classes_gets_one_chunk():
    memory = estimate_memory(1000, dim=8, k=5, solver=solvers.build("cg"), builder="faiss_flat")
    assert choose_chunks(memory, 1000, 100, 10e6, columnwise=False).width == 100
    assert choose_chunks(memory, 1000, 100, 2e6).width < 100
    with pytest.raises(MemoryBudgetError, match="solving for 100 classes"):
        choose_chunks(memory, 1000, 100, 2e6, columnwise=False)


@pytest.mark.parametrize("name", ["closed_form", "spectral", "torch_sparse"])
def test_what_a_solver_prepares_counts(name):
    """A dense factorisation, an eigenbasis, int64 indices: all before the first class."""
    if missing := solvers.get(name).missing():
        pytest.skip(f"needs {', '.join(missing)}")
    cg, other = (estimate_memory(20_000, 64, 10, solvers.build(s)) for s in ("cg", name))
    assert other.graph > cg.graph
    budget = (cg.graph + other.graph) / 2 + cg.column
    alone = replace(cg, search=0, assemble=0)
    assert choose_chunks(alone, 20_000, 10, budget).width >= 1
    with pytest.raises(MemoryBudgetError, match="solving for 1 class"):
        choose_chunks(replace(other, search=0, assemble=0), 20_000, 10, budget)


@pytest.mark.parametrize("budget", [2e9, 3e9, 5e9, 20e9, 100e9])
def test_chunks_fit_the_budget(budget):
    n, classes = 1_000_000, 1000
    chunks = choose_chunks(
        estimate_memory(n, dim=64, k=5, solver=solvers.build("cg"), builder="faiss_flat"),
        n,
        classes,
        budget,
    )
    assert chunks.peak <= budget
    assert 1 <= chunks.width <= classes
    if budget == 100e9:
        assert chunks.width == classes
        assert not chunks.on_disk
    if budget == 2e9:
        assert chunks.on_disk  # 4 GB of scores


def test_too_little_memory_is_said_before_anything_is_read(tmp_path, data):
    with pytest.raises(MemoryBudgetError, match=r"1.0 MB of memory is too little: .* --memory"):
        dlp(tmp_path, "--memory", "1MB")
    with pytest.raises(UsageError, match="'plenty' is not a size"):
        dlp(tmp_path, "--memory", "plenty")
    assert not (tmp_path / "out.csv").exists()


def test_a_full_scratch_disk(tmp_path, monkeypatch):
    store = scores.Scores(tmp_path)
    monkeypatch.setattr(store, "_file", open("/dev/full", "wb"))  # noqa: SIM115
    with store, pytest.raises(SaveError, match="scratch file"):
        store.append(torch.zeros(100_000, 4))


# -- bad input ----------------------------------------------------------------------------------


def test_nan_and_infinite_embeddings(tmp_path, data):
    x = data[0].copy()
    x[13, 2], x[20, 1] = np.nan, np.inf
    np.save(tmp_path / "bad.npy", x)
    with pytest.raises(DlpError, match=r"2 of 600 rows hold NaN or infinity.*row 13 "):
        dlp(tmp_path, embeddings="bad.npy")
    assert not (tmp_path / "out.csv").exists()


def test_a_zero_vector_gets_no_label(tmp_path, data):
    x, _, few = data
    x = x.copy()
    x[[11, 20]] = 0  # 11 is unlabelled, 20 labelled
    np.save(tmp_path / "zero.npy", x)
    output = dlp(tmp_path, *PAPER, "--probabilities", embeddings="zero.npy")
    rows = table(tmp_path)
    assert (rows[11]["label"], rows[11]["certainty"], rows[11]["margin"]) == ("", "0", "0")
    assert {rows[11][f"probability_{i}"] for i in range(C)} == {"0"}
    assert (rows[20]["label"], rows[20]["certainty"]) == (str(few[20]), "1")
    assert re.search("zero vectors +2", output)
    assert re.search("points no label reaches +1", output)
    assert all(r["label"] for i, r in enumerate(rows) if i != 11)
    dlp(tmp_path, *PAPER, embeddings="zero.npy", out="out.parquet")
    assert pq.read_table(tmp_path / "out.parquet")["label"][11].as_py() is None


def test_duplicates_by_the_thousand_share_one_label(tmp_path, data):
    x, _, few = data
    copies = np.vstack([x, np.tile(x[:2], (2000, 1))])  # copies of a labelled and another point
    np.save(tmp_path / "many.npy", copies)
    np.save(tmp_path / "many_y.npy", np.concatenate([few, np.full(4000, -1)]))
    output = dlp(tmp_path, embeddings="many.npy", labels="many_y.npy")
    rows = [(r["label"], r["certainty"], r["margin"], r["reached"]) for r in table(tmp_path)]
    assert {*rows[0::2][300:]} == {rows[0]}
    assert {*rows[1::2][300:]} == {rows[1]}
    assert rows[0][:2] == (str(few[0]), "1")
    assert re.search("points +4,600", output)
    assert re.search("same as an earlier point +4,000", output)
    # the others are labelled as if there were no copies
    dlp(tmp_path, out="alone.csv")
    alone = [
        (r["label"], r["certainty"], r["margin"], r["reached"])
        for r in table(tmp_path, "alone.csv")
    ]
    assert rows[:600] == alone


def test_one_class_only(tmp_path, data):
    _, _, few = data
    np.save(tmp_path / "one.npy", np.where(few >= 0, 3, -1))
    dlp(tmp_path, "--probabilities", labels="one.npy")
    rows = table(tmp_path)
    assert {(r["label"], r["certainty"], r["margin"], r["probability_3"]) for r in rows} == {
        ("3", "1", "1", "1")
    }


def test_classes_without_a_label(tmp_path, data):
    output = dlp(tmp_path, "--classes", "8", "--probabilities")
    rows = table(tmp_path)
    assert {r["probability_6"] for r in rows} == {"0"}
    assert {int(r["label"]) for r in rows} == set(range(C))
    assert re.search("classes without a point +3", output)


def test_a_label_outside_the_range(tmp_path, data):
    with pytest.raises(DlpError, match=r"label 4 of point \d+ is not among 0\.\.3"):
        dlp(tmp_path, "--classes", "4")
    np.save(tmp_path / "y.npy", np.where(np.arange(N) == 9, -7, data[2]))
    with pytest.raises(DlpError, match="label -7 of point 9"):
        dlp(tmp_path)


def test_labels_of_another_length(tmp_path, data):
    np.save(tmp_path / "y.npy", data[2][:-1])
    with pytest.raises(DlpError, match="holds 599 labels for 600 points"):
        dlp(tmp_path)


@pytest.mark.parametrize("name", ["x.npy", "y.npy"])
def test_empty_and_truncated_files(tmp_path, data, name):
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[:-100])
    with pytest.raises(DlpError, match=f"{name}: cannot be read"):
        dlp(tmp_path)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(DlpError, match=f"{name}: the file is empty"):
        dlp(tmp_path)


def test_k_at_least_n_takes_all_others(tmp_path, data):
    x, _, few = data
    np.save(tmp_path / "x.npy", x[:30])
    np.save(tmp_path / "y.npy", few[:30])
    output = dlp(tmp_path, *PAPER, "--set", "graph.k=1000")
    assert [int(r["label"]) for r in table(tmp_path)] == expected(
        x[:30], few[:30], k=29
    ).labels.tolist()
    assert "points" in output


def test_a_disconnected_graph(tmp_path, data):
    x, truth, few = data
    apart = np.hstack([x * (truth < 3)[:, None], x * (truth >= 3)[:, None]])  # orthogonal halves
    np.save(tmp_path / "x.npy", apart)
    np.save(tmp_path / "y.npy", np.where(truth < 3, few, -1))
    output = dlp(tmp_path, *PAPER)
    labels = np.array([r["label"] for r in table(tmp_path)])
    assert (labels[truth >= 3] == "").all()
    assert (labels[truth < 3] != "").all()
    assert [r["reached"] for r in table(tmp_path)] == [str(t < 3).lower() for t in truth]
    assert re.search(rf"points no label reaches +{(truth >= 3).sum()}", output)
    assert int(re.search(r"components without a label +(\d+)", output)[1]) >= 1


def test_the_discriminant_labels_what_no_label_reaches(tmp_path, data):
    x, truth, few = data
    apart = np.hstack([x * (truth < 3)[:, None], x * (truth >= 3)[:, None]])
    np.save(tmp_path / "x.npy", apart)
    np.save(tmp_path / "y.npy", np.where(truth < 3, few, -1))
    output = dlp(tmp_path, "--set", "transform=none", "--probabilities")
    rows = table(tmp_path)
    island = [row for row, t in zip(rows, truth, strict=True) if t >= 3]
    assert {row["reached"] for row in island} == {"false"}
    assert {row["certainty"] for row in island} == {"0"}
    assert all(row["label"] for row in island)
    for row in island:
        best = max(range(3), key=lambda j: float(row[f"probability_{j}"]))
        assert row["label"] == str(best)
    assert re.search(rf"reaches +{len(island)}, labelled by the refiner alone", output)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "solver.alpha=1.5"], "solver.alpha: found 1.5"),
        (["--set", "solver.alfa=0.5"], "Did you mean 'alpha'"),
        (["--set", "solver=gc"], "Available"),
        (["--set", "training.momentum=0"], "--set training: unknown here"),
        (["--set", "solvr.alpha=0.5"], "Did you mean 'solver'"),
        (["--plugin", "nowhere.py"], "no such file"),
    ],
)
def test_bad_settings(tmp_path, data, options, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        dlp(tmp_path, *options)


@pytest.mark.parametrize(
    ("out", "message"),
    [("out.txt", "is written as .csv or .parquet"), ("no/out.csv", "there is no folder")],
)
def test_a_table_that_cannot_be_written_is_refused_at_once(tmp_path, data, out, message):
    (tmp_path / "x.npy").unlink()  # not even looked for
    with pytest.raises(UsageError, match=message):
        dlp(tmp_path, out=out)


# -- what else may be given, and asked for ---------------------------------------------------------


def test_prior_unknown_and_truth(tmp_path, data):
    _, truth, few = data
    np.save(tmp_path / "truth.npy", truth)
    np.save(tmp_path / "prior.npy", np.eye(C)[truth] + 0.1)
    output = dlp(
        tmp_path, "--prior", str(tmp_path / "prior.npy"), "--prior-weight", "0.5", "--unknown",
        "--truth", str(tmp_path / "truth.npy"),
    )  # fmt: skip
    rows = table(tmp_path)
    assert {"probability", "unknown"} < set(rows[0])
    assert all(float(r["probability"]) == 1 for r, y in zip(rows, few, strict=True) if y >= 0)
    right = np.array([int(r["label"]) for r in rows]) == truth
    accuracy = 100 * right[few < 0].mean()
    assert f"{accuracy:.2f} % of {(few < 0).sum():,} unlabelled points" in output
    for line in ("calibration error", "Brier score", "accuracy at coverage", "by cross-validation"):
        assert line in output
    output = dlp(tmp_path, "--no-calibrate", "--overwrite", "--truth", str(tmp_path / "truth.npy"))
    assert "probability" not in table(tmp_path)[0]
    assert "calibration error" not in output


def test_several_labels_per_point(tmp_path, data):
    _, truth, few = data
    (tmp_path / "several.csv").write_text(
        "index,label\n" + "".join(f"{i},{y}\n{i},all\n" for i, y in enumerate(few) if y >= 0)
    )
    output = dlp(tmp_path, "--multi-label", labels="several.csv")
    rows = table(tmp_path)
    found = [
        set(r["label"].split("|")) == {str(y), "all"} for r, y in zip(rows, truth, strict=True)
    ]
    assert np.mean(found) > 0.9
    assert "labels per point" in output


def test_true_labels_of_nothing_else(tmp_path, data):
    np.save(tmp_path / "truth.npy", data[2])  # only the labels that are known anyway
    with pytest.raises(LabelError, match="holds the true label of no unlabelled point"):
        dlp(tmp_path, "--truth", str(tmp_path / "truth.npy"))
