"""Class sizes: one setting for normalizer, refiner and solver, from files and Python."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles import class_sizes as oracle
from oracles import label_quality
from oracles.digits import digits, some_labels

from dlp_plugins.embeddings.class_shares import read_class_shares
from dlp_plugins.embeddings.options import Options
from dlp_plugins.embeddings.run import prepare, propagate_file
from dlp_plugins.errors import DataError, ParameterError
from dlp_plugins.propagation import Propagator, propagate
from dlp_plugins.propagation.class_shares import estimate_shares, known_shares
from dlp_plugins.sklearn import GraphLabelPropagation

DEFAULT = {"transform": "rescale", "normalizer": "class_mass", "refiner": "discriminant"}
DEFAULT |= {"k": 10, "alpha": 0.9, "max_iterations": 100}


@pytest.fixture(scope="module")
def unequal():
    """Digits of which 0 to 4 are three times as frequent as 5 to 9; x, y, labels."""
    x, y = digits()
    keep = np.flatnonzero((y < 5) | (np.arange(len(y)) % 3 == 0))
    return x[keep], y[keep], some_labels(y[keep], 3)


def shares_of(y, labels):
    return np.bincount(y[labels < 0], minlength=10) / (labels < 0).sum()


def test_given_shares_equal_the_equations_in_every_label(unequal) -> None:
    x, y, labels = unequal
    pi = shares_of(y, labels)
    f = label_quality.rescale(x)
    wn, given = label_quality.graph(f), label_quality.one_hot(labels, 10)
    p = label_quality.class_mass(label_quality.spread(wn, given), labels < 0, pi)
    q = label_quality.discriminant(f, wn, p, given, pi)
    own = propagate(x, labels, 10, class_shares=pi * 1000, **DEFAULT)
    assert np.array_equal(own.labels.numpy(), q.argmax(axis=1))
    equal = propagate(x, labels, 10, **DEFAULT)
    assert not torch.equal(own.labels, equal.labels)
    torch.testing.assert_close(equal.class_shares, torch.full((10,), 0.1))


def test_labels_and_estimate_find_the_shares(unequal) -> None:
    x, y, labels = unequal
    few = np.where(np.arange(len(y)) % 10 == 0, y, -1)
    drawn = propagate(x, few, 10, class_shares="labels", **DEFAULT)
    counts = np.bincount(few[few >= 0], minlength=10)
    np.testing.assert_allclose(drawn.class_shares, counts / counts.sum(), atol=1e-6)

    found = propagate(x, labels, 10, class_shares="estimate", **DEFAULT)
    pi, truth = found.class_shares.numpy(), shares_of(y, labels)
    equal = propagate(x, labels, 10, **DEFAULT)
    wanted = oracle.em_shares(equal.probabilities.double().numpy()[labels < 0])
    np.testing.assert_allclose(pi, wanted, atol=2e-3)
    assert np.abs(pi - truth).sum() < 0.5 * np.abs(0.1 - truth).sum()
    again = propagate(x, labels, 10, class_shares=pi, **DEFAULT)
    torch.testing.assert_close(again.probabilities, found.probabilities, atol=1e-4, rtol=0)


def test_an_absent_class_has_no_share() -> None:
    p = torch.tensor([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.0, 0.0, 0.0]])
    pi = estimate_shares(lambda: [p[:1], p[1:]])
    assert float(pi[2]) == 0
    assert float(pi[1]) == pytest.approx(
        1 / 3, abs=1e-3
    )  # one point of two, and all over their sum
    with pytest.raises(ParameterError, match="there are none"):
        estimate_shares(lambda: [p[2:]])


@pytest.mark.parametrize("refiner", ["none", "discriminant"])
@pytest.mark.parametrize("normalizer", ["class_mass", "sinkhorn"])
def test_the_file_path_gives_the_same(unequal, tmp_path, normalizer, refiner) -> None:
    x, _, labels = unequal
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", labels)
    settings = [f"normalizer={normalizer}", f"refiner={refiner}", "transform=rescale"]
    outcome = propagate_file(
        tmp_path / "x.npy", tmp_path / "y.npy", tmp_path / "out.csv",
        settings=settings, class_shares="estimate",
    )  # fmt: skip
    parts = DEFAULT | {"normalizer": normalizer, "refiner": refiner}
    whole = propagate(x, labels, 10, class_shares="estimate", **parts)
    torch.testing.assert_close(outcome.class_shares, whole.class_shares, atol=1e-3, rtol=0)
    assert (outcome.labels == whole.labels).float().mean() > 0.99
    model = GraphLabelPropagation(
        class_shares="estimate", normalizer=normalizer, refiner=refiner, transformation="rescale"
    ).fit(x, labels)
    np.testing.assert_allclose(model.class_shares_, whole.class_shares, atol=1e-3)


def test_the_estimator_takes_shares_by_class(unequal) -> None:
    x, y, labels = unequal
    names = np.where(labels >= 0, np.char.add("d", labels.astype(str)), "").astype(object)
    counts = dict(zip([f"d{j}" for j in range(10)], 100 * shares_of(y, labels), strict=True))
    model = GraphLabelPropagation(class_shares=counts).fit(x, names)
    np.testing.assert_allclose(model.class_shares_, shares_of(y, labels), atol=1e-6)
    other = {k: v for k, v in counts.items() if k != "d9"} | {"e": 1}
    with pytest.raises(ValueError, match="look at d9, e"):
        GraphLabelPropagation(class_shares=other).fit(x, names)


def test_shares_from_files(tmp_path) -> None:
    path = tmp_path / "shares.csv"
    path.write_text("share,label\n30,dog\n10,cat\n")
    assert read_class_shares(str(path), ["cat", "dog"]) == (0.25, 0.75)
    np.save(tmp_path / "shares.npy", np.array([1, 3]))
    assert read_class_shares(str(tmp_path / "shares.npy"), [7, 9]) == (0.25, 0.75)
    assert read_class_shares("labels", [7, 9]) == "labels"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("cat,1\ndog,2\n", "must name the columns label,share"),
        ("label,share\ncat,1\n", "no share is given for dog"),
        ("label,share\ncat,1\ndgo,2\n", "line 3: no point is labelled 'dgo'. Did you mean 'dog'"),
        ("label,share\ncat,1\ncat,2\n", "'cat' is there twice"),
        ("label,share\ncat,1\ndog,much\n", "'much' is not a number"),
        ("label,share\ncat,1\ndog\n", "line 3: expected a label and a share"),
    ],
)
def test_a_file_of_shares_that_cannot_be_used(tmp_path, text, sentence) -> None:
    path = tmp_path / "shares.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=sentence):
        read_class_shares(str(path), ["cat", "dog"])


def test_shares_that_cannot_be_used(unequal, tmp_path) -> None:
    x, _, labels = unequal
    for shares, sentence in (
        ("equals", "allowed: equal, labels, estimate"),
        ([0.5, 0.5], "2 numbers for 10 classes"),
        ([0.0] * 10, "class 0 is 0; it must be above 0"),
        ([float("nan")] * 10, "class 0 is nan"),
        (3, "a number for each class"),
    ):
        with pytest.raises(ParameterError, match=sentence):
            propagate(x, labels, 10, class_shares=shares, **DEFAULT)
    with pytest.raises(DataError, match="neither a file nor one of"):
        read_class_shares("equals", ["cat", "dog"])
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", labels)
    with pytest.raises(ParameterError, match="2 numbers for 10 classes"):
        prepare(Options(
            tmp_path / "x.npy", tmp_path / "y.npy", tmp_path / "out.csv",
            settings=["pseudo_labels.class_shares=[1, 2]"],
        ))  # fmt: skip


def test_known_shares_of_every_rule() -> None:
    labels = torch.tensor([0, 0, 1, -1, -1])
    assert known_shares("equal", labels, 2).tolist() == [0.5, 0.5]
    assert known_shares("labels", labels, 4).tolist() == pytest.approx([2 / 3, 1 / 3, 0, 0])
    assert known_shares("estimate", labels, 2) is None
    assert Propagator.default(class_shares=[3, 1]).class_shares == (0.75, 0.25)
