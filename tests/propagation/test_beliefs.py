"""Soft labels, weights of labels and prior scores, against plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from oracles import label_quality as oracle

from dlp_plugins.errors import FeatureError, LabelError
from dlp_plugins.propagation import Propagator, label_matrix, propagate
from dlp_plugins.propagation.beliefs import Beliefs, Prior, to_beliefs

N, C, ALPHA = 90, 3, 0.9
DEFAULT = {
    "transform": "rescale", "normalizer": "class_mass", "refiner": "discriminant",
    "k": 10, "alpha": ALPHA, "tolerance": 1e-6,
}  # fmt: skip


def points(noise: float = 0.6) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping clusters [n, d], and the labels [n] of nine points, -1 elsewhere."""
    rng = np.random.default_rng(0)
    truth = np.arange(N) % C
    x = np.eye(6)[truth] + noise * rng.standard_normal((N, 6))
    return x, np.where(np.arange(N) < 9, truth, -1)


def soft_labels() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shares [n, c] with sums other than 1, weights [n] and prior scores [n, c]."""
    rng = np.random.default_rng(1)
    shares = np.zeros((N, C))
    shares[:9] = 2 * rng.dirichlet([0.3, 0.3, 0.3], size=9)
    shares[:3] = np.eye(C)
    prior = rng.dirichlet([1, 1, 1], size=N)
    prior[::7] = 0
    return shares, rng.uniform(0.2, 3, N), prior


def test_the_whole_default_equals_plain_numpy() -> None:
    x, _ = points()
    shares, weight, prior = soft_labels()
    f = oracle.rescale(x)
    wn, pi = oracle.graph(f), np.full(C, 1 / C)
    given = oracle.sum_to_one(shares)
    mass = given * weight[:, None]
    y = mass / mass.sum(axis=0) + 0.4 * prior / prior.sum(axis=0)
    z = np.linalg.solve(np.eye(N) - ALPHA * wn.toarray(), y)
    p = oracle.class_mass(z, ~given.any(axis=1), pi)
    q = oracle.discriminant(f, wn, p, given, pi, weight)
    found = propagate(x, shares, label_weights=weight, prior=prior, prior_weight=0.4, **DEFAULT)
    np.testing.assert_allclose(found.scores, z, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found.probabilities, q, atol=2e-3)
    expected = np.where(given.any(axis=1), given.argmax(axis=1), q.argmax(axis=1))
    assert found.labels.tolist() == expected.tolist()
    np.testing.assert_allclose(found.certainty[:9], given[:9].max(axis=1), rtol=1e-6)
    plain = propagate(x, expected * (np.arange(N) < 9) - (np.arange(N) >= 9), **DEFAULT)
    assert not torch.equal(plain.scores, found.scores)


@pytest.mark.parametrize("form", [np.asarray, torch.from_numpy, sp.csr_array, "torch sparse"])
def test_labels_in_another_form_give_the_same_bits(form: Any) -> None:
    x, labels = points()
    one_hot = oracle.one_hot(labels, C)
    given = torch.from_numpy(one_hot).to_sparse() if form == "torch sparse" else form(one_hot)
    plain = propagate(x, labels, **DEFAULT)
    for found in (
        propagate(x, given, **DEFAULT),
        propagate(x, labels, label_weights=np.ones(N), **DEFAULT),
        propagate(x, labels, prior=given, prior_weight=0, **DEFAULT),
    ):
        assert torch.equal(found.scores, plain.scores)
        assert torch.equal(found.probabilities, plain.probabilities)
        assert torch.equal(found.labels, plain.labels)
        assert torch.equal(found.certainty, plain.certainty)


@pytest.mark.parametrize(
    "form", [torch.from_numpy, sp.csr_array, "torch sparse", np.ndarray.tolist]
)
def test_prior_scores_in_another_form(form: Any) -> None:
    x, labels = points()
    prior = soft_labels()[2]
    given = torch.from_numpy(prior).to_sparse() if form == "torch sparse" else form(prior)
    dense = propagate(x, labels, prior=prior, **DEFAULT)
    assert torch.equal(propagate(x, labels, prior=given, **DEFAULT).scores, dense.scores)


def test_columns_of_the_label_matrix_are_those_of_the_whole() -> None:
    _, labels = points()
    shares, weight, prior = soft_labels()
    _, c, beliefs = to_beliefs(shares, weights=weight, prior=prior, prior_weight=2)
    plain = torch.from_numpy(labels)
    whole = beliefs.label_matrix(plain, c)
    parts = [beliefs.label_matrix(plain, c, j, j + 1) for j in range(c)]
    assert torch.equal(torch.cat(parts, dim=1), whole)
    assert torch.equal(Beliefs().label_matrix(plain, C), label_matrix(plain, C))


def test_a_label_of_weight_0_is_none() -> None:
    x, labels = points()
    weight = np.where(np.arange(N) == 4, 0.0, 1.0)
    fewer = np.where(np.arange(N) == 4, -1, labels)
    found, plain = propagate(x, labels, label_weights=weight), propagate(x, fewer)
    assert torch.equal(found.labels, plain.labels)
    assert torch.equal(found.scores, plain.scores)
    with pytest.raises(LabelError, match="No point is labelled"):
        propagate(x, labels, label_weights=np.zeros(N))


def test_a_prior_reaches_a_class_without_a_label() -> None:
    x, labels = points(noise=0.3)
    labels[labels == 2] = -1
    prior = np.eye(C)[np.arange(N) % C] * (np.arange(N) % 2)[:, None]
    assert 2 not in propagate(x, labels, **DEFAULT).labels
    found = propagate(x, labels, prior=prior, **DEFAULT).labels.numpy()
    assert (found == np.arange(N) % C).mean() > 0.9  # 2/3 at most without the class


def test_points_of_one_node_are_averaged() -> None:
    shares = np.array([[1, 0], [0, 1], [0, 0], [0.5, 0.5]])
    weights, prior = np.array([1.0, 3, 1, 2]), np.array([[1.0, 0], [0, 0], [0, 1], [0, 1]])
    _, _, beliefs = to_beliefs(shares, weights=weights, prior=prior)
    nodes = beliefs.grouped(torch.tensor([0, 0, 0, 1]))
    assert nodes.given is not None
    assert nodes.prior is not None
    assert nodes.given.points.tolist() == [0, 1]
    assert nodes.given.weights.tolist() == [2, 2]
    assert nodes.given.distributions.tolist() == [[0.25, 0.75], [0.5, 0.5]]
    # mean rows (1/3, 1/3) and (0, 1)
    np.testing.assert_allclose(nodes.prior.columns(0, 2), [[1, 0.25], [0, 0.75]], rtol=1e-6)


def test_hidden_labels_are_left_out() -> None:
    _, _, beliefs = to_beliefs(np.eye(3), weights=np.array([1.0, 2, 3]))
    kept = beliefs.without(torch.tensor([False, True, False])).given
    assert kept is not None
    assert kept.points.tolist() == [0, 2]
    assert kept.weights.tolist() == [1, 3]


def test_a_column_of_a_prior_without_scores_stays_zero() -> None:
    prior = Prior(np.array([[1.0, 0], [3, 0]]), 0.5)
    assert prior.columns(0, 2).tolist() == [[0.125, 0], [0.375, 0]]


@pytest.mark.parametrize("factor", [1e-60, 1e60, 1e300])
def test_scores_that_float32_does_not_hold(factor: float) -> None:
    prior = soft_labels()[2]
    expected = Prior(prior, 1.0).columns(0, C)
    torch.testing.assert_close(Prior(prior * factor, 1.0).columns(0, C), expected)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {"label_weights": np.ones(N - 1)},
            rf"Weights of labels must be \[{N}\]; found \[{N - 1}\]",
        ),
        ({"label_weights": -np.ones(N)}, "at least 0; found -1"),
        ({"label_weights": np.full(N, np.nan)}, "found NaN or infinity"),
        ({"prior": np.ones((N, C + 1)), "num_classes": C}, rf"must be \[{N}, {C}\]"),
        ({"prior": np.full((N, C), -0.5)}, "Prior scores must be finite and at least 0"),
        ({"prior": np.ones(N)}, "Prior scores must be"),
        ({"prior": np.ones((N, C)), "prior_weight": -1}, "at least 0; found -1"),
        ({"prior": np.full((N, C), "a")}, "Prior scores must be numbers"),
    ],
)
def test_what_is_refused(given: dict[str, Any], sentence: str) -> None:
    x, labels = points()
    with pytest.raises(LabelError, match=sentence):
        propagate(x, labels, **given)


def test_soft_labels_that_do_not_fit() -> None:
    x, _ = points()
    with pytest.raises(LabelError, match="Soft labels have 3 columns; found 4 classes"):
        propagate(x, np.eye(N, 3), 4)
    with pytest.raises(LabelError, match="No point is labelled"):
        propagate(x, np.zeros((N, 3)))
    with pytest.raises(LabelError, match=f"{N} points but labels"):
        propagate(x, np.eye(5, 3))


def test_sparse_descriptors_are_refused_in_a_sentence() -> None:
    x, labels = points()
    for sparse in (sp.csr_array(x), sp.csr_matrix(x), torch.from_numpy(x).to_sparse()):
        with pytest.raises(FeatureError, match=r"are a sparse matrix, and must be dense"):
            propagate(sparse, labels)


def test_soft_labels_need_no_gradient() -> None:
    x, labels = points()
    soft = torch.from_numpy(oracle.one_hot(labels, C)).requires_grad_()
    found = Propagator.default()(torch.from_numpy(x), *to_beliefs(soft)[:2])
    assert not found.scores.requires_grad
