"""Points of no known class, against a dense solve."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles import label_quality as oracle

from dlp_plugins.errors import UsageError
from dlp_plugins.propagation import Propagator, propagate

N, ALPHA = 90, 0.9


def points() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three clusters [n, d], which points are of the third, and labels of the first two."""
    rng = np.random.default_rng(0)
    truth = np.arange(N) % 3
    x = np.eye(5)[truth] + 0.2 * rng.standard_normal((N, 5))
    return x, truth == 2, np.where((np.arange(N) < 6) & (truth < 2), truth, -1)


def test_equal_to_a_dense_solve_and_high_where_no_label_is() -> None:
    x, other, labels = points()
    found = propagate(x, labels, k=10, alpha=ALPHA, tolerance=1e-6, unknown=True).unknown
    wn = oracle.graph(oracle.unit_rows(x)).toarray()
    y = oracle.one_hot(labels, 2)
    reach = np.linalg.solve(np.eye(N) - ALPHA * wn, np.c_[y / y.sum(axis=0), np.full(N, 1 / N)])
    reach = np.maximum(reach, 0)
    expected = reach[:, 2] / (reach[:, 2] + reach[:, :2].mean(axis=1))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert found[other].min() > found[~other].max()


def test_what_no_label_reaches_is_unknown() -> None:
    x = np.eye(4).repeat(5, axis=0)
    x += 0.01 * np.random.default_rng(0).standard_normal((20, 4))
    labels = np.full(20, -1)
    labels[[5, 10]] = [0, 1]
    found = propagate(x, labels, k=2, unknown=True).unknown
    assert found[:5].tolist() == [1] * 5
    assert found[5:15].max() < 1


def test_a_solver_of_another_system_is_refused() -> None:
    x, _, labels = points()
    made = Propagator.default(solver="poisson")
    with pytest.raises(UsageError, match="such as cg; found Poisson"):
        propagate(x, labels, propagator=made, unknown=True)
    assert propagate(torch.from_numpy(x), labels, propagator=made).unknown is None


def test_neither_empty_classes_nor_a_prior_weight_change_what_is_unknown() -> None:
    x, _, labels = points()
    plain = propagate(x, labels, k=10, unknown=True).unknown
    more = propagate(x, labels, k=10, unknown=True, num_classes=50).unknown
    torch.testing.assert_close(more, plain)
    even = np.ones((N, 2))
    small, large = (
        propagate(x, labels, k=10, unknown=True, prior=even, prior_weight=w, tolerance=1e-6).unknown
        for w in (1e-6, 1e6)
    )
    torch.testing.assert_close(small, plain, rtol=0, atol=1e-3)
    # a prior that is the same everywhere says what the uniform source does
    torch.testing.assert_close(large, torch.full((N,), 0.5), rtol=0, atol=1e-3)
