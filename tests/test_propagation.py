"""Pseudo-labels: the known failures of other systems, and the method's constants."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import Tensor

from dlp_plugins.errors import ConvergenceError, ConvergenceWarning, FeatureError, LabelError
from dlp_plugins.graph import Graph
from dlp_plugins.propagation import Propagator, PseudoLabels, label_matrix, propagate
from dlp_plugins.registry import solvers


def clusters(per_class: int = 20, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Descriptors around one axis each, and their true classes."""
    random = torch.Generator().manual_seed(seed)
    truth = torch.arange(classes).repeat_interleave(per_class)
    noise = 0.2 * torch.randn(len(truth), classes, generator=random)
    return torch.eye(classes)[truth] + noise, truth


def some(truth: Tensor, every: int = 10) -> Tensor:
    labels = torch.full_like(truth, -1)
    labels[::every] = truth[::every]
    return labels


def graph_of(edges: list[tuple[int, int]], n: int) -> Graph:
    w = np.zeros((n, n))
    for i, j in edges:
        w[i, j] = w[j, i] = 1
    return Graph.from_affinity(sp.csr_matrix(w))


# 0-1-2-3 with a label at each end, 4-5 without any, 6 isolated
DISCONNECTED = graph_of([(0, 1), (1, 2), (2, 3), (4, 5)], 7)
LABELS = torch.tensor([0, -1, -1, 1, -1, -1, -1])


def spread(classes: int = 2, **parameters: object) -> PseudoLabels:
    settings = {"max_iterations": 50, **parameters}
    return Propagator.default(**settings).spread(DISCONNECTED, LABELS, classes)


# -- known failures of others ---------------------------------------------------------------------


def test_a_component_without_labels_poisons_nobody() -> None:
    """An all-zero row has no entropy; elsewhere its NaN becomes every weight (authors' code)."""
    pseudo = spread()
    assert torch.isfinite(pseudo.weights).all()
    assert torch.isfinite(pseudo.certainty).all()
    assert pseudo.certainty[4:].tolist() == [0, 0, 0]
    assert pseudo.weights[4:].tolist() == [0, 0, 0]
    assert pseudo.certainty[1] == 1  # the largest certainty is that of a reached point


def test_an_unreachable_row_does_not_take_the_first_class() -> None:
    """scikit-learn gives it class 0 in silence; here it has no label, and the health counts it."""
    pseudo = spread()
    assert pseudo.labels.tolist() == [0, 0, 1, 1, -1, -1, -1]
    assert pseudo.health.unreached == 3
    assert pseudo.health.unlabeled_components == 2


def test_an_unreached_row_stays_so_after_a_warm_start() -> None:
    """Last epoch's scores reached it; this epoch's graph does not."""
    propagator = Propagator.default(max_iterations=50)
    warm = propagator.spread(DISCONNECTED, LABELS, 2, torch.rand(7, 2))
    assert warm.labels.tolist() == spread().labels.tolist()
    # The two ends are nearly balanced: certainty divides small differences by small ones.
    torch.testing.assert_close(warm.certainty, spread().certainty, rtol=0, atol=0.01)


def test_a_class_without_a_labelled_example_divides_by_nothing() -> None:
    pseudo = spread(classes=3)
    assert torch.isfinite(pseudo.weights).all()
    assert not pseudo.probabilities[:, 2].any()
    assert pseudo.class_weights[2] == 0
    assert pseudo.health.empty_classes == 1


def test_stopping_short_warns() -> None:
    descriptors, truth = clusters()
    with pytest.warns(ConvergenceWarning, match=r"after 2 iterations at a relative residual of"):
        pseudo = propagate(descriptors, some(truth), k=5, max_iterations=2)
    assert not pseudo.health.converged
    assert pseudo.health.iterations == 2
    assert pseudo.health.residual is not None
    assert pseudo.health.residual > 1e-3


def test_stopping_short_raises_where_asked() -> None:
    descriptors, truth = clusters()
    with pytest.raises(ConvergenceError, match="raise max_iterations"):
        propagate(descriptors, some(truth), k=5, max_iterations=2, on_unconverged="raise")


def test_convergence_is_silent() -> None:
    descriptors, truth = clusters()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pseudo = propagate(descriptors, some(truth), k=5, max_iterations=200)
        propagate(descriptors, some(truth), k=5, max_iterations=2, on_unconverged="ignore")
    assert pseudo.health.converged
    assert pseudo.health.residual is not None
    assert pseudo.health.residual < 1e-5


# -- the method -----------------------------------------------------------------------------------


def test_every_step_by_hand() -> None:
    """Graph, solve, probabilities, certainty and balance in dense float64, from the equations."""
    descriptors, truth = clusters(per_class=15)
    labels, n, c, k, alpha, gamma = some(truth, 9), 45, 3, 4, 0.9, 3
    labels[truth == 2] = -1
    labels[40] = 2
    v = descriptors.double().numpy()
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    s = v @ v.T
    np.fill_diagonal(s, -np.inf)
    a = np.zeros((n, n))
    for i in range(n):
        for j in np.argsort(-s[i])[:k]:
            a[i, j] = max(s[i, j], 0) ** gamma
    w = a + a.T
    wn = w / np.sqrt(np.outer(w.sum(1), w.sum(1)))
    y = np.zeros((n, c))
    for i in range(n):
        if labels[i] >= 0:
            y[i, labels[i]] = 1 / (labels == labels[i]).sum()
    z = np.maximum(np.linalg.solve(np.eye(n) - alpha * wn, y), 0)
    p = z / z.sum(1, keepdims=True)
    entropy = -np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(1)
    certainty = 1 - entropy / math.log(c)
    own = labels.numpy() >= 0
    certainty /= certainty[~own].max()
    certainty[own] = 1
    best = np.where(own, labels, p.argmax(1))
    balance = (n / c) / np.bincount(best, minlength=c)

    pseudo = propagate(descriptors, labels, k=k, alpha=alpha, gamma=gamma, max_iterations=200)
    assert pseudo.labels.tolist() == best.tolist()
    np.testing.assert_allclose(pseudo.probabilities, p, atol=1e-4)
    np.testing.assert_allclose(pseudo.certainty, certainty, atol=1e-4)
    np.testing.assert_allclose(pseudo.class_weights, balance, rtol=1e-5)
    np.testing.assert_allclose(pseudo.weights, certainty * balance[best], atol=1e-3)


def test_labelled_points_keep_their_label_and_weigh_1() -> None:
    descriptors, truth = clusters()
    labels = some(truth)
    labels[0] = 2  # against all its neighbours
    pseudo = propagate(descriptors, labels, k=5, max_iterations=200)
    given = labels >= 0
    assert torch.equal(pseudo.labels[given], labels[given])
    assert (pseudo.certainty[given] == 1).all()
    assert pseudo.certainty[~given].max() == 1
    assert pseudo.certainty.min() >= 0


def test_all_points_labelled() -> None:
    descriptors, truth = clusters()
    pseudo = propagate(descriptors, truth, k=5, max_iterations=200)
    assert torch.equal(pseudo.labels, truth)
    assert (pseudo.weights == 1).all()


def test_one_class_alone() -> None:
    descriptors, _ = clusters()
    labels = torch.full((60,), -1)
    labels[0] = 0
    pseudo = propagate(descriptors, labels, k=10, max_iterations=200)
    assert (pseudo.labels <= 0).all()
    assert torch.isfinite(pseudo.weights).all()


def test_label_matrix_divides_each_column_by_its_labels() -> None:
    y = label_matrix(torch.tensor([0, 1, -1, 0, 0]), 3)
    third = 1 / 3
    expected = [[third, 0, 0], [0, 1, 0], [0, 0, 0], [third, 0, 0], [third, 0, 0]]
    torch.testing.assert_close(y, torch.tensor(expected))


@pytest.mark.parametrize("name", ["cg", "power", "chebyshev", "closed_form", "poisson", "amg"])
@pytest.mark.filterwarnings("ignore::dlp_plugins.errors.ConvergenceWarning")
def test_clusters_are_found_whatever_the_solver(name: str) -> None:
    if missing := solvers.get(name).missing():
        pytest.skip(f"needs {', '.join(missing)}")
    descriptors, truth = clusters(per_class=40)
    default = Propagator.default(k=8)
    propagator = Propagator(**{**vars(default), "solver": solvers.build(name)})
    pseudo = propagate(descriptors, some(truth, 13), propagator=propagator)
    assert (pseudo.labels == truth).float().mean() > 0.95


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        (lambda v, y: (v.fill_(math.nan), y), FeatureError, "60 of 60 descriptors hold NaN"),
        (lambda v, y: (v[:, :0], y), FeatureError, r"must be \[n, d\]"),
        (lambda v, y: (v, y[:-1]), LabelError, "60 points but labels of shape"),
        (lambda v, y: (v, y - 5), LabelError, r"Label -\d of point 0 is outside 0\.\."),
        (lambda v, y: (v, y * 0 - 1), LabelError, "needs at least one"),
        (lambda v, y: (v, y.float()), LabelError, "must be integers"),
    ],
)
def test_bad_input(change: object, error: type[Exception], sentence: str) -> None:
    descriptors, truth = clusters()
    v, y = change(descriptors, some(truth))  # type: ignore[operator]
    with pytest.raises(error, match=sentence):
        propagate(v, y, num_classes=3)
