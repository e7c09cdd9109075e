"""Logistic regression against scikit-learn and a plain NumPy port."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles import label_quality as oracle
from oracles.digits import digits, some_labels
from sklearn.linear_model import LogisticRegression

from dlp_plugins.refiners import _logistic_regression


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("per_class", [2, 20])
def test_logistic_regression_equals_scikit_learn(classes: int, per_class: int) -> None:
    x, y = digits()
    x, y = oracle.rescale(x)[y < classes], y[y < classes]
    labels = some_labels(y, per_class)
    labels[np.flatnonzero(labels == 0)[1:]] = -1  # unequal classes
    at = np.flatnonzero(labels >= 0)
    theirs = LogisticRegression(C=10, class_weight="balanced", tol=1e-8, max_iter=10_000)
    expected = theirs.fit(x[at], labels[at]).predict_proba(x)
    given = oracle.one_hot(labels, classes)
    target = torch.from_numpy(given[at])
    ours = _logistic_regression.fit(torch.from_numpy(x[at]), target, torch.ones(len(at)))
    np.testing.assert_allclose(ours.probabilities(torch.from_numpy(x)), expected, atol=1e-4)
    np.testing.assert_allclose(oracle.logistic_probabilities(x, given), expected, atol=1e-5)


def test_logistic_regression_with_soft_labels_weights_and_an_absent_class() -> None:
    f = oracle.rescale(digits()[0])[:30]
    rng = np.random.default_rng(0)
    target, weight = rng.dirichlet(np.ones(4), size=30), rng.uniform(0.5, 2, size=30)
    target[:, 1] = 0
    v, u = oracle.logistic_regression(f, target, weight)
    ours = _logistic_regression.fit(*map(torch.from_numpy, (f, target, weight)))
    p = ours.probabilities(torch.from_numpy(f)).numpy()
    np.testing.assert_allclose(p, oracle.softmax(f @ v.T + u, axis=1), atol=1e-5)
    assert not p[:, 1].any()


@pytest.mark.parametrize("width", [5, 64])  # more examples than numbers, and fewer
def test_a_start_from_nearly_the_same_examples_gives_the_same_answer(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = digits()
    f, known = torch.from_numpy(oracle.rescale(x)[:, :width].copy()), torch.from_numpy(y)
    # 3 is absent at first, 9 is not known of yet
    first = ((known != 3) & (known < 9)).nonzero().squeeze(1)[:40]
    more = torch.cat([first, (known == 3).nonzero()[0], (known == 9).nonzero()[0]])
    one_hot = torch.nn.functional.one_hot(known, 10).double()
    start = _logistic_regression.fit(f[first], one_hot[first, :9], torch.ones(len(first)))
    counts = []
    minimize = _logistic_regression.minimize

    def counted(loss, *arguments):  # type: ignore[no-untyped-def]
        calls = []
        found = minimize(lambda theta: calls.append(0) or loss(theta), *arguments)
        counts.append(len(calls))
        return found

    monkeypatch.setattr(_logistic_regression, "minimize", counted)
    arguments = f[more], one_hot[more], torch.ones(len(more))
    cold = _logistic_regression.fit(*arguments)
    warm = _logistic_regression.fit(*arguments, start=start)
    again = _logistic_regression.fit(*arguments, start=warm)
    torch.testing.assert_close(warm.probabilities(f), cold.probabilities(f), atol=1e-4, rtol=0)
    assert counts[2] == 1 < counts[0]  # nothing was left to do
    torch.testing.assert_close(again.weights, warm.weights)
