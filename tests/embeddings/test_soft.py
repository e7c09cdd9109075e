"""Files with weights, several labels per point and prior scores give what Python gives."""

from __future__ import annotations

import csv

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
import torch

from dlp_plugins.embeddings import memory_fit
from dlp_plugins.embeddings.defaults import propagation_recipe
from dlp_plugins.embeddings.labels import read_labels
from dlp_plugins.embeddings.memory import ClassChunks
from dlp_plugins.embeddings.prior import open_prior
from dlp_plugins.embeddings.run import propagate_file
from dlp_plugins.errors import DataError, LabelError, UsageError
from dlp_plugins.propagation import propagate
from dlp_plugins.recipe.build import build_propagator

N, C = 60, 3


@pytest.fixture
def folder(tmp_path):
    """Embeddings x.npy of three clusters, and prior scores p.npy."""
    rng = np.random.default_rng(0)
    x = np.eye(5)[np.arange(N) % C] + 0.5 * rng.standard_normal((N, 5))
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "p.npy", rng.dirichlet([1, 1, 1], N))
    return tmp_path


def python(folder, labels, **options):
    """`propagate` with the components of `dlp propagate`."""
    propagator = build_propagator(propagation_recipe([], N))
    return propagate(np.load(folder / "x.npy"), labels, propagator=propagator, **options)


def outcome(folder, labels="y.csv", **options):
    return propagate_file(
        folder / "x.npy", folder / labels, folder / "out.csv", overwrite=True, **options
    )


def same(found, expected):
    assert found.labels.tolist() == expected.labels.tolist()
    np.testing.assert_allclose(found.probabilities.all(), expected.probabilities, atol=1e-6)
    np.testing.assert_allclose(found.certainty, expected.certainty, atol=1e-6)


TEXT = "index,label,weight\n0,a,1\n1,b,2\n2,c,0.5\n3,a,0.75\n3,b,0.25\n4,b,0\n"


def test_weights_and_several_labels(folder):
    (folder / "y.csv").write_text(TEXT)
    shares, weights = np.zeros((N, C)), np.ones(N)
    shares[:4] = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.75, 0.25, 0]]
    weights[:4] = [1, 2, 0.5, 1]
    same(outcome(folder), python(folder, shares, label_weights=weights))
    np.save(folder / "y.npy", 3 * shares)
    same(outcome(folder, "y.npy"), python(folder, shares))


@pytest.mark.parametrize(("width", "on_disk"), [(1, True), (2, False)])
def test_chunks_do_not_change_the_answer(folder, monkeypatch, width, on_disk):
    (folder / "y.csv").write_text(TEXT)
    prior = folder / "p.npy"
    whole = outcome(folder, prior=prior, prior_weight=0.3)
    chunks = ClassChunks(width, on_disk, 0)
    monkeypatch.setattr(memory_fit, "choose_chunks", lambda *a: chunks)
    same(outcome(folder, prior=prior, prior_weight=0.3), whole.__class__(
        **{**vars(whole), "probabilities": whole.probabilities.all()}
    ))  # fmt: skip


def test_points_with_one_embedding_share_their_labels(folder):
    x = np.load(folder / "x.npy")
    x[30] = x[0]
    np.save(folder / "x.npy", x)
    (folder / "y.csv").write_text("index,label,weight\n0,a,1\n30,b,1\n1,b,1\n2,c,1\n")
    found = outcome(folder, prior=folder / "p.npy")
    assert found.labels[[0, 30]].tolist() == [0, 1]
    assert found.certainty[[0, 30]].tolist() == [1, 1]
    np.testing.assert_allclose(found.probabilities.rows(slice(0, 1))[0], [0.5, 0.5, 0])


def test_every_form_of_a_prior(folder):
    np.save(folder / "y.npy", np.where(np.arange(N) < 6, np.arange(N) % C, -1))
    scores = np.load(folder / "p.npy")
    np.savez(folder / "plain.npz", scores)
    np.savez(folder / "named.npz", scores=scores[:, [2, 0, 1]], classes=["2", "0", "1"])
    sp.save_npz(folder / "sparse.npz", sp.csr_matrix(scores))
    columns = {"id": [f"p{i}" for i in range(N)], "probability_1": scores[:, 1]}
    columns |= {
        "probability_0": scores[:, 0],
        "probability_2": scores[:, 2],
        "margin": scores[:, 0],
    }
    pq.write_table(pa.table(columns), folder / "written.parquet")
    expected = python(folder, np.load(folder / "y.npy"), prior=scores)
    for name in ("p.npy", "plain.npz", "named.npz", "sparse.npz", "written.parquet"):
        same(outcome(folder, "y.npy", prior=folder / name), expected)


def test_a_prior_brings_classes_without_a_label(folder):
    (folder / "y.csv").write_text("index,label\n0,b\n2,d\n")
    np.savez(folder / "p.npz", np.load(folder / "p.npy"), classes=["d", "a", "b"])
    found = outcome(folder, prior=folder / "p.npz")
    with (folder / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [rows[0]["label"], rows[2]["label"]] == ["b", "d"]
    assert found.counts.shape == (3,)


def test_the_same_bits_without_the_options(folder):
    (folder / "y.csv").write_text("index,label\n0,a\n1,b\n2,c\n")
    (folder / "w.csv").write_text("index,label,weight\n0,a,1\n1,b,1\n2,c,1\n")
    plain, weighted = outcome(folder), outcome(folder, "w.csv")
    assert torch.equal(plain.probabilities.all(), weighted.probabilities.all())
    assert torch.equal(plain.certainty, weighted.certainty)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("y.csv", {"label": ["a", "", "b"], "weight": ["2", "", "0.5"]}),
        ("y.parquet", {"index": [0, 2], "label": ["a", "b"], "weight": [2.0, 0.5]}),
        ("y.npz", {"label": ["a", "", "b"], "weight": [2.0, np.nan, 0.5]}),
    ],
)
def test_weights_in_every_format(tmp_path, name, rows):
    path = tmp_path / name
    if name.endswith(".csv"):
        text = [",".join(rows), *(",".join(cells) for cells in zip(*rows.values(), strict=True))]
        path.write_text("\n".join(text))
    elif name.endswith(".parquet"):
        pq.write_table(pa.table(rows), path)
    else:
        np.savez(path, **rows)
    given = read_labels(path, 3).given
    assert given.points.tolist() == [0, 2]
    assert given.weights.tolist() == [2, 0.5]
    assert given.distributions.tolist() == [[1, 0], [0, 1]]


def test_labels_that_are_each_whole(tmp_path):
    (tmp_path / "y.csv").write_text("index,label\n0,a\n0,b\n2,b\n2,b\n")
    found = read_labels(tmp_path / "y.csv", 3, several=True)
    assert found.given.distributions.tolist() == [[1, 1], [0, 1]]
    np.save(tmp_path / "y.npy", np.array([[1, 1, 0], [0, 0, 0], [0, 0, 1]]))
    assert read_labels(tmp_path / "y.npy", 3, several=True).given.distributions.tolist() == [
        [1, 1, 0], [0, 0, 1]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("index,label\n0,a\n0,b\n", "point 0 has two labels, 'a' and 'b'. If it has, add a column"),
        ("index,label,weight\n0,a,-1\n", r"weight of the label in row 0 .* at least 0; found '-1'"),
        ("index,label,weight\n0,a,much\n", "found 'much'"),
        ("index,label,weight\n0,a,\n", "found ''"),
        ("index,label,weight\n0,a,0\n", "every label has weight 0"),
    ],
)
def test_weights_that_are_refused(tmp_path, text, message):
    (tmp_path / "y.csv").write_text(text)
    with pytest.raises(LabelError, match=message):
        read_labels(tmp_path / "y.csv", 3)


def test_shares_that_are_refused(tmp_path):
    path = tmp_path / "y.npy"
    for array, message in (
        (np.zeros((3, 2)), "no point is labelled"),
        (np.ones((4, 2)), r"must be \[3, classes\]; found \[4, 2\]"),
        (np.array([[0, 1], [-1, 0], [0, 0]]), "y.npy: Soft labels must be finite and at least 0"),
    ):
        np.save(path, array)
        with pytest.raises(LabelError, match=message):
            read_labels(path, 3)


def test_priors_that_are_refused(tmp_path):
    (tmp_path / "y.csv").write_text("a\nb\n\n")
    given = read_labels(tmp_path / "y.csv", 3)
    path = tmp_path / "p.npz"
    np.savez(path, np.ones((3, 5)))
    with pytest.raises(LabelError, match="5 columns of scores for 2 classes"):
        open_prior(path, 3).match(given, 1)
    np.savez(path, np.ones((3, 2)), classes=["a", "c"])
    with pytest.raises(LabelError, match="no column of scores for class 'b'; the columns are a, c"):
        open_prior(path, 3).match(given, 1)
    np.savez(path, -np.ones((3, 2)), classes=["a", "b"])
    with pytest.raises(LabelError, match=r"p\.npz: Prior scores must be finite"):
        open_prior(path, 3).match(given, 1)
    with pytest.raises(DataError, match=r"must be \[4, classes\]; found \[3, 2\]"):
        open_prior(path, 4)
    np.savez(path, np.ones((3, 2)), classes=["a", "a"])
    with pytest.raises(DataError, match="a different name for each of the 2 columns"):
        open_prior(path, 3)
    pq.write_table(pa.table({"a": ["x", "y", "z"]}), tmp_path / "p.parquet")
    with pytest.raises(DataError, match="'a' is not"):
        open_prior(tmp_path / "p.parquet", 3)


def test_a_weight_without_a_prior_is_refused(folder):
    with pytest.raises(UsageError, match="--prior-weight belongs to --prior"):
        propagate_file(folder / "x.npy", folder / "y.csv", folder / "t.csv", prior_weight=7)
