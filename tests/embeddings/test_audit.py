"""Doubts about given labels, on blobs some of whose labels are wrong."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch

from dlp_plugins.embeddings._label_noise import LabelNoise
from dlp_plugins.embeddings.audit import (
    Audit,
    Evidence,
    audit_by_graph,
    audit_labels,
    folds_of,
)
from dlp_plugins.embeddings.audit_file import ALONE, audit_file
from dlp_plugins.embeddings.built import Built
from dlp_plugins.embeddings.defaults import propagation_recipe
from dlp_plugins.propagation.beliefs import to_beliefs
from dlp_plugins.recipe.build import build_propagator

C, EACH = 4, 40
WRONG = [0, 41, 85]  # points of classes 0, 1, 2


def blobs() -> torch.Tensor:
    """Four classes of 40 points, class after class."""
    random = np.random.default_rng(0)
    centers = random.normal(size=(C, 16))
    return torch.from_numpy(np.repeat(centers, EACH, 0) + 0.5 * random.normal(size=(C * EACH, 16)))


def given() -> torch.Tensor:
    """Eight labels per class, three of them of the next class; class 4 has one label."""
    labels = torch.full((C * EACH,), -1)
    for j in range(C):
        labels[j * EACH : j * EACH + 8] = j
    labels[WRONG[0]], labels[WRONG[1]], labels[WRONG[2]] = 1, 2, 3
    labels[C * EACH - 1] = 4
    return labels


@pytest.fixture(scope="module", params=["discriminant", "none"])
def audit(request: pytest.FixtureRequest) -> Audit:
    propagator = build_propagator(propagation_recipe([f"refiner={request.param}"]))
    built = Built.of(propagator, blobs().float())
    return audit_labels(propagator, built.f, built.graph, given(), C + 1, built.distinct)


def test_the_wrong_labels_come_first(audit):
    first = audit.points[audit.order]
    assert set(first[:3]) == set(WRONG)
    assert (audit.points == np.flatnonzero(given() >= 0)).all()
    at = np.isin(audit.points, WRONG)
    assert audit.suggested[at].tolist() == [0, 1, 2]
    assert (audit.doubt[at] > 0.5).all()
    assert np.nanmax(audit.doubt[~at]) < 0.5
    assert audit.likely_wrong() == (3, pytest.approx(audit.doubt[at].mean()))
    assert audit.error_rate == pytest.approx(3 / 33, abs=0.04)


def test_witnesses_are_labelled_points_of_the_suggested_class(audit):
    labels = given().numpy()
    for point, suggested, own, against in zip(
        audit.points, audit.suggested, audit.labels, audit.against, strict=True
    ):
        witnesses = against[against >= 0]
        assert (labels[witnesses] == suggested).all()
        if point in WRONG:
            assert len(witnesses) == 3
        if suggested == own:
            assert len(witnesses) == 0


def test_the_only_label_of_its_class_has_no_doubt_and_comes_last(audit):
    assert audit.points[audit.order[-1]] == C * EACH - 1
    alone = audit.points == C * EACH - 1
    assert np.isnan(audit.doubt[alone]).all()
    assert audit.suggested[alone] == -1
    assert not np.isnan(audit.doubt[~alone]).any()


def test_a_glance_by_the_graph_alone_at_some_labels():
    propagator = build_propagator(propagation_recipe([]))
    built = Built.of(propagator, blobs().float())
    found = audit_by_graph(built.graph, given(), C + 1, most=20)
    assert len(found.points) == 20
    assert (given()[found.points].numpy() == found.labels).all()
    wrong = np.isin(found.points, WRONG)
    assert wrong.any()
    assert (found.doubt[wrong] > 0.5).all()
    assert np.nanmax(found.doubt[~wrong]) < 0.5
    every = audit_by_graph(built.graph, given(), C + 1)
    assert every.error_rate == pytest.approx(3 / 33, abs=0.04)


def test_labels_of_weight_one_are_plain_labels():
    propagator = build_propagator(propagation_recipe([]))
    built = Built.of(propagator, blobs().float())
    ones = to_beliefs(given(), C + 1, weights=np.ones(C * EACH))[2]
    assert ones.given is not None
    plain, weighted = (
        audit_labels(propagator, built.f, built.graph, given(), C + 1, built.distinct, *beliefs)
        for beliefs in ((), (ones,))
    )
    np.testing.assert_allclose(weighted.doubt, plain.doubt, atol=1e-4)
    assert weighted.suggested.tolist() == plain.suggested.tolist()


def test_what_the_rest_says_is_a_refit_with_the_weights_of_labels_at_the_solvers_alpha():
    propagator = build_propagator(propagation_recipe(["refiner=none", "solver.alpha=0.5"]))
    built = Built.of(propagator, blobs().float())
    w = np.random.default_rng(0).uniform(0.2, 2, C * EACH)
    beliefs = to_beliefs(given(), C + 1, weights=w)[2]
    found = Evidence.of(
        propagator, built.f, built.graph, given(), C + 1, built.distinct, beliefs
    ).left_out
    wn = built.graph.to_scipy().toarray().astype(np.float64)
    g, labels = np.linalg.inv(np.eye(len(wn)) - 0.5 * wn), given().numpy()
    for row, point in zip(found, np.flatnonzero(labels >= 0), strict=True):
        rest = np.where(np.arange(len(labels)) == point, -1, labels)
        y = (rest[:, None] == np.arange(C + 1)) * w[:, None]
        z = g @ (y / np.maximum(y.sum(axis=0), 1e-9))
        p = z[point] / np.maximum(z[rest < 0].sum(axis=0), 1e-9)
        np.testing.assert_allclose(row, p / p.sum(), rtol=1e-4, atol=1e-6)


def test_fewer_labels_at_a_higher_precision(audit):
    counts = [audit.likely_wrong(p)[0] for p in (0.0, 0.9, 0.999999)]
    assert counts[0] == 3
    assert counts[2] == 0


def testfolds_of_are_even_in_every_class():
    labels = torch.tensor([0] * 10 + [1] * 5 + [2] * 7)[torch.randperm(22)]
    fold = folds_of(labels, 5, seed=0)
    for j in range(3):
        counts = torch.bincount(fold[labels == j], minlength=5)
        assert counts.max() - counts.min() <= 1
    assert torch.bincount(fold).tolist() == [5, 5, 4, 4, 4]


def test_no_label_is_doubted_where_all_agree():
    rest = np.full((50, 5), 0.02)
    labels = np.arange(50) % 5
    rest[np.arange(50), labels] = 0.92
    noise = LabelNoise.fit(rest, labels)
    assert noise.error_rate < 1e-3
    assert noise.doubt(rest, labels).max() < 1e-3


def test_the_share_of_wrong_labels_is_recovered():
    random = np.random.default_rng(0)
    truth = random.integers(0, 10, 4000)
    rest = np.full((4000, 10), 0.2 / 9)
    guess = np.where(random.random(4000) < 0.8, truth, random.integers(0, 10, 4000))
    rest[np.arange(4000), guess] = 0.8
    wrong = random.random(4000) < 0.25
    labels = np.where(wrong, (truth + random.integers(1, 10, 4000)) % 10, truth)
    noise = LabelNoise.fit(rest, labels)
    assert noise.error_rate == pytest.approx(0.25, abs=0.04)
    doubt = noise.doubt(rest, labels)
    assert doubt[doubt > 0.5].mean() == pytest.approx(wrong[doubt > 0.5].mean(), abs=0.08)


def test_a_single_class_is_never_doubted():
    noise = LabelNoise.fit(np.ones((3, 1)), np.zeros(3, int))
    assert noise.doubt(np.ones((3, 1)), np.zeros(3, int)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_the_table(tmp_path, suffix):
    np.save(tmp_path / "x.npy", blobs().numpy())
    labels = [(f"p{i}", "abcde"[j]) for i, j in enumerate(given().tolist()) if j >= 0]
    (tmp_path / "y.csv").write_text("id,label\n" + "\n".join(map(",".join, labels)))
    (tmp_path / "ids.txt").write_text("\n".join(f"p{i}" for i in range(C * EACH)))
    out = tmp_path / f"t{suffix}"
    audit_file(tmp_path / "x.npy", tmp_path / "y.csv", out, ids=tmp_path / "ids.txt")
    if suffix == ".csv":
        with out.open(newline="") as file:
            rows = list(csv.DictReader(file))
    else:
        import pyarrow.parquet as pq

        rows = pq.read_table(out).to_pylist()
    names = ["index", "id", "label", "suggested", "doubt", "against", "against_ids", "note"]
    assert list(rows[0]) == names
    assert len(rows) == 33
    first = {int(row["index"]): row for row in rows[:3]}
    assert first.keys() == set(WRONG)
    assert (first[41]["id"], first[41]["label"], first[41]["suggested"]) == ("p41", "c", "b")
    against = first[41]["against"].split()
    assert len(against) == 3
    assert first[41]["against_ids"] == "; ".join(f"p{row}" for row in against)
    assert 0.5 < float(first[41]["doubt"]) <= 1
    last = rows[-1]
    assert (last["label"], last["note"]) == ("e", ALONE)
    assert last["doubt"] in ("", None)
    assert last["suggested"] in ("", None)


def test_a_copy_with_another_label_is_doubted():
    """Equal embeddings are one node; each label of one is left out by itself."""
    x, labels = blobs(), given()
    x, labels = torch.cat([x, x[[90]]]), torch.cat([labels, torch.tensor([0])])
    labels[90] = 2
    propagator = build_propagator(propagation_recipe([]))
    built = Built.of(propagator, x.float())
    assert built.distinct.duplicates == 1
    found = audit_labels(propagator, built.f, built.graph, labels, C + 1, built.distinct)
    copy = found.points == C * EACH
    assert found.suggested[copy] == 2
    assert found.doubt[copy] > 0.5
    assert found.against[copy][0, 0] == 90
    assert found.doubt[found.points == 90] < 0.5
