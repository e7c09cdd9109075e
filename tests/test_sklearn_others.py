"""The estimators of several labels per point and of classes that are only named."""

from __future__ import annotations

import doctest
import importlib

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.datasets import make_multilabel_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV

from dlp_plugins.embeddings.prototypes import propagate_prototypes
from dlp_plugins.propagation.multi_label import propagate_multi_label
from dlp_plugins.sklearn import MultiLabelPropagation, PrototypePropagation
from dlp_plugins.solvers.cg import ConjugateGradient


@pytest.fixture(scope="module")
def several():
    """Rows X [300, 20], all labels [300, 4], and those of every third point."""
    X, y = make_multilabel_classification(
        300, 20, n_classes=4, allow_unlabeled=False, random_state=0
    )
    few = np.where((np.arange(300) % 3 == 0)[:, None], y, 0)
    return X, y, few


SETTINGS = {"transformation": "none", "n_neighbors": 8, "gamma": 1.0}


def test_several_labels_are_those_of_the_function(several):
    X, _, few = several
    model = MultiLabelPropagation(**SETTINGS).fit(X, few)
    found = propagate_multi_label(X, few, k=8, alpha=0.9, gamma=1.0, max_iterations=100)
    assert np.array_equal(model.transduction_, found.labels.numpy())
    np.testing.assert_allclose(model.thresholds_, found.thresholds, rtol=1e-3)
    assert np.array_equal(model.classes_, np.arange(4))
    assert np.array_equal(model.transduction_[few.any(axis=1)], few[few.any(axis=1)])


def test_rows_of_minus_one_and_sparse_matrices_are_the_same(several):
    X, _, few = several
    found = MultiLabelPropagation(**SETTINGS).fit(X, few).transduction_
    marked = np.where(few.any(axis=1, keepdims=True), few, -1)
    for y in (marked, sp.csr_matrix(few)):
        assert np.array_equal(MultiLabelPropagation(**SETTINGS).fit(X, y).transduction_, found)


def test_new_points_get_about_as_many_labels_right(several):
    X, y, few = several
    old = np.arange(300) < 240
    model = MultiLabelPropagation(**SETTINGS).fit(X[old], few[old])
    whole = MultiLabelPropagation(**SETTINGS).fit(X, np.where(old[:, None], few, 0))
    new = model.predict(X[~old])
    right, among = (new == y[~old]).mean(), (whole.transduction_[~old] == y[~old]).mean()
    chance = max((y == 0).mean(), (y == 1).mean())
    assert right > among - 0.03
    assert right > chance + 0.1


def test_equal_rows_share_their_labels(several):
    X, _, few = several
    twice = np.concatenate([X, X[:60]])
    y = np.concatenate([few, np.zeros((60, 4), int)])
    model = MultiLabelPropagation(**SETTINGS).fit(twice, y)
    unlabeled = ~few[:60].any(axis=1)
    assert np.array_equal(model.transduction_[300:][unlabeled], model.transduction_[:60][unlabeled])
    assert model.transduction_[300:][~unlabeled].any()


def test_several_labels_in_a_grid_search(several):
    X, y, _ = several
    search = GridSearchCV(MultiLabelPropagation(**SETTINGS), {"alpha": [0.5, 0.9]}, cv=2).fit(X, y)
    assert search.best_score_ > 0.1
    assert search.best_estimator_.predict(X[:3]).shape == (3, 4)


@pytest.mark.parametrize(
    ("y", "says"),
    [
        ([[0, 0]] * 4, "No point is labelled"),
        ([[2, 0]] * 4, "matrix of 0 and 1"),
        ([[1, -1], [1, 0], [0, 1], [0, 0]], "Row 0 of y holds -1 beside"),
        ([[1, 0]] * 3, "inconsistent numbers of samples"),
    ],
)
def test_several_labels_that_are_refused(y, says):
    with pytest.raises(ValueError, match=says):
        MultiLabelPropagation(n_neighbors=1).fit(np.eye(4), y)


def test_several_labels_warn_when_not_converged(several):
    X, _, few = several
    with pytest.warns(ConvergenceWarning, match="raise max_iter"):
        MultiLabelPropagation(**SETTINGS, max_iter=1).fit(X, few)
    found = propagate_multi_label(X, few, k=8, max_iterations=1)
    assert found.convergence.labels_may_change
    assert found.convergence.iterations == 1


@pytest.fixture(scope="module")
def named():
    """Images X [120, 8] near one of 3 prototypes [3, 8], and their classes."""
    rng = np.random.default_rng(0)
    t = np.eye(3, 8)
    y = np.repeat(np.arange(3), 40)
    return t[y] + 0.35 * rng.normal(size=(120, 8)), t, y


def test_prototypes_give_the_labels_of_the_function(named):
    X, t, y = named
    model = PrototypePropagation(t).fit(X)
    found = propagate_prototypes(X, t)
    assert np.array_equal(model.transduction_, found.labels)
    np.testing.assert_allclose(model.label_distributions_, found.probabilities, rtol=1e-6)
    assert (model.transduction_ == y).mean() > 0.8
    names = np.array(["c", "a", "b"])
    by_name = PrototypePropagation(dict(zip(names, t, strict=True))).fit(X)
    assert by_name.classes_.tolist() == ["a", "b", "c"]
    assert np.array_equal(by_name.transduction_, names[model.transduction_])


def test_labels_of_images_count_beside_prototypes(named):
    X, t, y = named
    known = np.where(np.arange(120) % 4 == 0, y, -1)
    found = PrototypePropagation(t).fit(X, known).transduction_
    assert np.array_equal(found[::4], y[::4])
    assert np.array_equal(found, propagate_prototypes(X, t, known).labels)
    names = np.array(["a", "b", "c"])
    y_named = np.array([names[j] if j >= 0 else -1 for j in known])  # -1 becomes text
    by_name = PrototypePropagation(dict(zip(names, t, strict=True))).fit(X, y_named)
    assert np.array_equal(by_name.transduction_, names[found])


def test_a_new_image_gets_the_label_it_would_have_had(named):
    X, t, _ = named
    old = np.arange(120) % 4 != 0
    new = PrototypePropagation(t).fit(X[old]).predict(X[~old])
    assert (new == PrototypePropagation(t).fit(X).transduction_[~old]).mean() >= 0.95
    model = PrototypePropagation(t).fit(X[old])
    np.testing.assert_allclose(model.predict_proba(X[~old]).sum(axis=1), 1)
    np.testing.assert_allclose(model.predict_proba(np.zeros((1, 8))), 1 / 3)
    assert clone(model).prototypes is not None


@pytest.mark.parametrize(
    ("prototypes", "y", "says"),
    [
        (np.eye(3, 5), None, "same model"),
        (np.full((3, 8), np.nan), None, "prototypes contains NaN"),
        (np.eye(3, 8), [7] * 120, "Class 7 of y has no prototype"),
        ({"a": np.eye(8)[0], 1: np.eye(8)[1]}, None, "all names or all numbers"),
        ({0: np.eye(8)[0], -1: np.eye(8)[1]}, None, "key -1, which means no label"),
        ({"a": np.eye(8)[0], "-1": np.eye(8)[1]}, None, "key -1, which means no label"),
    ],
)
def test_prototypes_that_are_refused(named, prototypes, y, says):
    with pytest.raises(ValueError, match=says):
        PrototypePropagation(prototypes).fit(named[0], y)


@pytest.mark.parametrize("names", [["a", "b", "c"], [10, 20, 30]])
def test_an_image_that_nothing_reaches_gets_minus_one(named, names):
    X, t, _ = named
    model = PrototypePropagation(dict(zip(names, t, strict=True)))
    model.fit(np.vstack([X, np.zeros((1, 8))]))
    assert np.flatnonzero(~model.reached_).tolist() == [120]
    assert model.transduction_[120] == -1
    assert model.certainty_[120] == 0
    assert set(model.transduction_[:120]) == set(names)
    assert model.predict(np.vstack([np.zeros((1, 8)), t])).tolist() == [-1, *names]


def test_the_score_of_prototypes_counts_the_labelled_alone(named):
    X, t, y = named
    names = np.array(["a", "b", "c"])
    model = PrototypePropagation(dict(zip(names, t, strict=True))).fit(X)
    right = model.predict(X) == names[y]
    known = np.array([names[j] if i % 4 == 0 else -1 for i, j in enumerate(y)], dtype=object)
    assert model.score(X, known) == pytest.approx(right[::4].mean())
    assert model.score(X, known.astype(str), np.arange(120)) == pytest.approx(
        np.average(right[::4], weights=np.arange(120)[::4])
    )
    assert model.score(X, np.full(120, "d")) == 0
    with pytest.raises(ValueError, match="nothing to score"):
        model.score(X, np.full(120, -1))


def test_prototypes_warn_when_not_converged(named):
    X, t, _ = named
    solver = ConjugateGradient(alpha=0.99, max_iterations=1)
    with pytest.warns(ConvergenceWarning, match="raise max_iterations of the solver"):
        PrototypePropagation(t, solver=solver).fit(X)


@pytest.mark.parametrize("solver", ["closed_form", "poisson", ConjugateGradient(alpha=0.3)])
def test_prototypes_with_other_solvers(named, solver):
    X, t, y = named
    found = PrototypePropagation(t, solver=solver).fit(X).transduction_
    assert (found == y).mean() > 0.7


@pytest.mark.parametrize("module", ["classifier", "multi_label", "prototypes"])
def test_the_examples_of_the_estimators(module):
    found = doctest.testmod(importlib.import_module(f"dlp_plugins.sklearn.{module}"))
    assert found.attempted > 0
    assert found.failed == 0
