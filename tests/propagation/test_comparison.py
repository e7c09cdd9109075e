"""The comparison of methods: folds, errors, and when the default is left."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dlp_plugins.normalizers.clamp import Clamp
from dlp_plugins.propagation import Propagator
from dlp_plugins.propagation.comparison import (
    Method,
    Row,
    _folds,
    _mean_and_error,
    compare,
    methods,
    shape_of,
)
from dlp_plugins.propagation.start import LogisticRegression
from dlp_plugins.refiners.none import NoRefiner
from dlp_plugins.solvers.cg import ConjugateGradient

pytestmark = pytest.mark.usefixtures("one_thread")
TRUTH = np.arange(90) % 3
LABELS = torch.from_numpy(np.where(np.arange(90) < 60, TRUTH, -1))
NOISE = torch.nn.functional.normalize(
    torch.from_numpy(np.random.default_rng(0).normal(size=(90, 8)).astype(np.float32))
)
PROPAGATOR = Propagator.default(k=5, alpha=0.9, normalizer="class_mass")
GRAPH = PROPAGATOR.build_graph(NOISE)


class Knows:
    """A classifier that knows the truth by heart, but for a share of the points."""

    def __init__(self, wrong: int = 0) -> None:
        self.wrong = wrong

    def fit(self, X, y):
        self.classes_ = np.arange(3)
        self.labeled = len(y)
        return self

    def predict_proba(self, X):
        shift = np.arange(90) < self.wrong
        return np.eye(3)[(TRUTH + shift) % 3]


def alone(name: str, wrong: int = 0) -> Method:
    parts = replace(PROPAGATOR, solver=ConjugateGradient(alpha=0.0), normalizer=Clamp())
    return Method(name, parts, Knows(wrong), divide=False)


def test_every_label_of_a_class_with_several_is_hidden_once_per_repeat():
    labels = np.repeat([0, 1, 2, 3, -1], [7, 5, 2, 1, 20])
    counts = np.array([7, 5, 2, 1])
    assert shape_of(counts) == (2, 5)
    assert shape_of(np.array([7, 5, 1])) == (5, 2)
    assert shape_of(np.array([30, 3])) == (3, 4)
    hidden = list(_folds(labels, counts))
    assert np.bincount(np.concatenate(hidden), minlength=35).tolist() == [5] * 14 + [0] * 21
    for fold in hidden:
        left = counts - np.bincount(labels[fold], minlength=4)
        assert (left > 0).all()


def test_a_method_that_is_clearly_better_is_taken():
    found = compare(
        [Method("default", PROPAGATOR), alone("fair", 30), alone("good", 2)],
        GRAPH, NOISE, LABELS, 3,
    )  # fmt: skip
    default, fair, good = found.rows
    assert (found.judged, found.repeats) == (60, 2)
    assert default.accuracy < 0.6
    assert (fair.accuracy, good.accuracy) == (30 / 60, 58 / 60)
    assert good.gain == pytest.approx(good.accuracy - default.accuracy)
    assert found.chosen.name == "good"
    assert found.describe().startswith("Taken: good, ")


def test_a_method_that_is_a_little_better_is_not():
    found = compare([alone("default", 4), alone("other", 0)], GRAPH, NOISE, LABELS, 3)
    assert [row.accuracy for row in found.rows] == [56 / 60, 1.0]
    assert found.chosen.name == "default"
    assert "other is not clearly better (6.7 ± " in found.describe()
    same = compare([alone("default"), alone("other")], GRAPH, NOISE, LABELS, 3)
    assert same.chosen.name == "default"
    assert same.describe() == "The default is kept: no other method is better."


def test_at_one_label_per_class_the_default_is_kept():
    labels = torch.where(torch.arange(90) < 3, LABELS, -1)
    found = compare([Method("default", PROPAGATOR), alone("good")], GRAPH, NOISE, labels, 3)
    assert found.rows == []
    assert found.chosen.name == "default"
    assert "needs a class with at least two labels. The default is kept." in found.describe()


def test_standard_errors():
    x = np.array([1.0, 0, 1, 1, 0.5])
    mean, error = _mean_and_error(x)
    assert mean == x.mean()
    assert error == pytest.approx(x.std() / np.sqrt(5))
    few = Row("x", 1, 0, *_mean_and_error(np.ones(2), least=1.0))
    many = Row("x", 1, 0, *_mean_and_error(np.ones(9), least=1.0))
    assert (few.clearly_better, many.clearly_better) == (False, True)
    assert many.gain_error == pytest.approx(1 / 9) == pytest.approx(few.gain_error * 2 / 9)
    rows = [Row("x", 1.0, 0.0, gain, 0.01) for gain in (0.024, 0.026)]
    assert [row.clearly_better for row in rows] == [False, True]


def test_methods_that_are_the_same_stand_once():
    names = [m.name for m in methods(PROPAGATOR)]
    assert names == ["default", "started from logistic regression", "logistic regression"]
    refined = Propagator.default(normalizer="class_mass", refiner="discriminant")
    assert len(methods(refined)) == len(methods(PROPAGATOR, LogisticRegression())) == 4


def test_logistic_regression_among_the_methods_is_without_a_graph():
    f = torch.nn.functional.normalize(NOISE + 2 * torch.eye(3, 8)[torch.from_numpy(TRUTH)])
    method = methods(PROPAGATOR)[-1]
    assert isinstance(method.propagator.refiner, NoRefiner)
    found = method.propagator.spread(
        GRAPH, LABELS, 3, descriptors=f, beliefs=method.beliefs(f)
    ).labels.numpy()
    p = LogisticRegression().fit(f[:60].numpy(), TRUTH[:60]).predict_proba(f.numpy())
    assert found[60:].tolist() == p.argmax(axis=1)[60:].tolist()
