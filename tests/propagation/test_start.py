"""A start from a classifier against the equation in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression as SklearnRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier

from dlp_plugins.errors import ComponentError, ParameterError
from dlp_plugins.propagation import Propagator
from dlp_plugins.propagation.beliefs import Beliefs, Prior
from dlp_plugins.propagation.start import LogisticRegression, Start, check_estimator

pytestmark = pytest.mark.usefixtures("one_thread")
CLASSES = 4  # the last one has no label
TRUTH = np.arange(60) % 3
RNG = np.random.default_rng(0)
F = torch.nn.functional.normalize(
    torch.from_numpy((np.eye(3, 8)[TRUTH] + RNG.normal(size=(60, 8)) / 4).astype(np.float32))
)
LABELS = torch.from_numpy(np.where(np.arange(60) < 9, TRUTH, -1))


def expected_matrix() -> np.ndarray:
    known = LABELS.numpy() >= 0
    fitted = GaussianNB().fit(F.numpy()[known], TRUTH[known])
    y = np.zeros((60, CLASSES))
    y[:, :3] = fitted.predict_proba(F.numpy())
    y[known] = np.eye(CLASSES)[TRUTH[known]]
    total = y.sum(axis=0)
    return y / np.where(total > 0, total, 1)


def test_the_label_matrix_holds_probabilities_over_column_sums():
    y = Start(GaussianNB(), F).label_matrix(LABELS, CLASSES)
    np.testing.assert_allclose(y.numpy(), expected_matrix(), atol=1e-6)


def test_scores_are_the_solution_for_it():
    propagator = Propagator.default(k=6, alpha=0.8, tolerance=1e-6)
    graph = propagator.build_graph(F)
    beliefs = Beliefs(start=Start(GaussianNB(), F))
    found = propagator.spread(graph, LABELS, CLASSES, beliefs=beliefs)
    system = np.eye(60) - 0.8 * graph.to_scipy().toarray()
    assert found.scores is not None
    expected = np.linalg.solve(system, expected_matrix())
    np.testing.assert_allclose(found.scores.numpy(), expected, atol=1e-5)


def test_a_few_classes_at_once_are_columns_of_all_and_leave_them_as_they_are():
    prior = Prior(np.ones((60, CLASSES), dtype=np.float32), weight=1.0)
    beliefs = Beliefs(prior=prior, start=Start(GaussianNB(), F))
    once = beliefs.label_matrix(LABELS, CLASSES)
    parts = [beliefs.label_matrix(LABELS, CLASSES, j, j + 1) for j in range(CLASSES)]
    torch.testing.assert_close(torch.cat(parts, dim=1), once)


def test_other_labels_fit_another_classifier():
    start = Start(GaussianNB(), F)
    start.label_matrix(LABELS, CLASSES)
    fewer = torch.where(torch.arange(60) < 6, LABELS, -1)
    expected = Start(GaussianNB(), F).label_matrix(fewer, CLASSES)
    torch.testing.assert_close(start.label_matrix(fewer, CLASSES), expected)


def test_without_division_the_rows_are_the_probabilities():
    y = Start(GaussianNB(), F, divide=False).label_matrix(LABELS, CLASSES)
    torch.testing.assert_close(y.sum(dim=1), torch.ones(60))


def test_own_logistic_regression_is_scikit_learns():
    own = LogisticRegression().fit(F[:9].numpy(), TRUTH[:9]).predict_proba(F.numpy())
    other = SklearnRegression(C=10, class_weight="balanced", max_iter=1000, tol=1e-8)
    expected = other.fit(F[:9].numpy(), TRUTH[:9]).predict_proba(F.numpy())
    np.testing.assert_allclose(own, expected, atol=1e-4)


class Negative(GaussianNB):
    def predict_proba(self, X):
        return -super().predict_proba(X)


@pytest.mark.parametrize(
    ("estimator", "sentence"),
    [
        (KNeighborsClassifier(n_neighbors=40), "KNeighborsClassifier to start from fails on 9 lab"),
        (Negative(), "must give .* that are at least 0"),
    ],
)
def test_a_classifier_that_fails_is_named(estimator, sentence):
    with pytest.raises(ComponentError, match=sentence):
        Start(estimator, F).label_matrix(LABELS, CLASSES)


@pytest.mark.parametrize("wrong", [GaussianNB, "GaussianNB", 3])
def test_what_is_no_estimator_is_refused(wrong):
    with pytest.raises(ParameterError, match="start must be an estimator"):
        check_estimator(wrong)


def test_the_estimator_given_is_not_changed():
    estimator = GaussianNB()
    Start(estimator, F).label_matrix(LABELS, CLASSES)
    assert not hasattr(estimator, "classes_")
