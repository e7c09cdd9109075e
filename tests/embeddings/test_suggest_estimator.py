"""The estimator's `suggest`."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from dlp_plugins.selectors.coverage import Coverage
from dlp_plugins.sklearn import GraphLabelPropagation

pytestmark = pytest.mark.usefixtures("one_thread")
SIZES = (30, 20, 12)
TRUTH = np.repeat([0, 1, 2], SIZES)
X = 3 * np.eye(3, 6)[TRUTH] + np.random.default_rng(0).normal(size=(62, 6)) / 2


def test_from_no_label_at_all():
    found = GraphLabelPropagation().suggest(3, X)
    assert sorted(TRUTH[found]) == [0, 1, 2]
    assert found.tolist() == GraphLabelPropagation().suggest(3, X, selector=Coverage()).tolist()


def test_after_fit_the_labels_count():
    y = np.full(62, -1)
    y[[2, 35]] = 0, 1
    model = GraphLabelPropagation().fit(X, y)
    assert TRUTH[model.suggest(1)].tolist() == [2]
    found = model.suggest(60, selector="margin")
    assert sorted(found) == [i for i in range(62) if i not in (2, 35)]
    with pytest.raises(ValueError, match="61 points are asked for, but 60 have no label"):
        model.suggest(61)


def test_of_copies_the_first_is_chosen():
    y = np.full(124, -1)
    y[62 + 5] = 0
    found = GraphLabelPropagation(unlabeled=-1).fit(np.concatenate([X, X]), y).suggest(61)
    assert sorted(found) == [i for i in range(62) if i != 5]


def test_what_is_refused():
    with pytest.raises(NotFittedError):
        GraphLabelPropagation().suggest(3)
    with pytest.raises(ValueError, match="count must be at least 1"):
        GraphLabelPropagation().suggest(0, X)
    with pytest.raises(ValueError, match="needs some labels to start from"):
        GraphLabelPropagation().suggest(3, X, selector="margin")


def test_class_shares_by_name_wait_for_the_classes():
    model = GraphLabelPropagation(class_shares={"a": 1, "b": 2})
    assert model.suggest(3, X).tolist() == GraphLabelPropagation().suggest(3, X).tolist()


def test_a_partial_fit_that_fails_leaves_the_estimator_as_it_was():
    y = np.where(np.arange(62) % 10 == 0, TRUTH, -1)
    y[TRUTH == 2] = -1
    model = GraphLabelPropagation(class_shares=[0.5, 0.5]).fit(X, y)
    before = model.predict_proba(X)
    with pytest.raises(ValueError, match="class_shares"):
        model.partial_fit(X[:2] + 0.1, [2, 2])
    assert model.classes_.tolist() == [0, 1]
    np.testing.assert_array_equal(model.predict_proba(X), before)
