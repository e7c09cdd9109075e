"""Class mass, transforms, logistic regression and the discriminant against a plain NumPy port."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from dlp_plugins import _logistic_regression
from dlp_plugins.graph import Graph
from dlp_plugins.normalizers.class_mass import ClassMass
from dlp_plugins.refiners._balance import balance
from dlp_plugins.refiners.contract import Given
from dlp_plugins.refiners.discriminant import Discriminant
from dlp_plugins.refiners.none import NoRefiner
from dlp_plugins.solvers._rows import by_rows
from dlp_plugins.transforms.center import Center
from dlp_plugins.transforms.contract import Transform, total_statistics
from dlp_plugins.transforms.none import NoTransform
from dlp_plugins.transforms.power import Power
from dlp_plugins.transforms.rescale import Rescale
from tests.oracles import label_quality as oracle

C = 10


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """600 images of digits [n, 64] and their classes."""
    x, y = load_digits(return_X_y=True)
    return x[:600], y[:600]


def some_labels(y: np.ndarray, per_class: int, seed: int = 0) -> np.ndarray:
    """[n]: so many labels of each class, -1 elsewhere."""
    rng = np.random.default_rng(seed)
    labels = np.full(len(y), -1)
    for j in np.unique(y):
        chosen = rng.choice(np.flatnonzero(y == j), per_class, replace=False)
        labels[chosen] = j
    return labels


def transformed(transform: Transform, x: np.ndarray, block: int = 200) -> np.ndarray:
    blocks = [torch.from_numpy(x[i : i + block]) for i in range(0, len(x), block)]
    total = total_statistics(transform, blocks)
    return torch.cat([transform.apply(rows, total) for rows in blocks]).numpy()


def refined(
    f: np.ndarray,
    wn,
    p: np.ndarray,
    given: np.ndarray,
    pi: np.ndarray,
    weight: np.ndarray | None = None,
) -> np.ndarray:
    """The torch version on the oracle's input."""
    points = np.flatnonzero(given.any(axis=1))
    weight = np.ones(len(f)) if weight is None else weight
    known = Given(
        torch.from_numpy(points),
        torch.from_numpy(given[points]).float(),
        torch.from_numpy(weight[points]).float(),
    )
    parts = (torch.from_numpy(a).float() for a in (f, p, pi))
    f32, p32, pi32 = parts
    wn.sort_indices()
    return Discriminant().refine(f32, graph_of(wn), p32, known, pi32).numpy()


def graph_of(wn) -> Graph:
    """The oracle's Wn, which is normalised already."""
    return Graph(
        torch.from_numpy(wn.indptr.astype(np.int32)),
        torch.from_numpy(wn.indices.astype(np.int32)),
        torch.from_numpy(wn.data.astype(np.float32)),
        torch.ones(wn.shape[0]),
    )


def test_rescale_equals_the_equations(digits) -> None:
    x, _ = digits
    np.testing.assert_allclose(transformed(Rescale(), x), oracle.rescale(x), atol=1e-6)


@pytest.mark.parametrize("transform", [Rescale(), Center(), Power(), NoTransform()])
def test_a_transform_gives_unit_rows_whatever_the_blocks_and_keeps_zero_rows(transform) -> None:
    x = np.random.default_rng(0).normal(size=(50, 8)) * 10.0 ** np.arange(8) + 3
    whole = transformed(transform, x, 50)
    np.testing.assert_allclose(transformed(transform, x, 7), whole, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, rtol=1e-6)
    with_zero = np.insert(x, 3, 0.0, axis=0)
    again = transformed(transform, with_zero)
    assert not again[3].any()
    np.testing.assert_allclose(np.delete(again, 3, axis=0), whole, atol=1e-6)


def test_rescale_takes_constant_columns_and_huge_rows() -> None:
    x = np.zeros((20, 5))
    x[:, 0] = np.random.default_rng(0).normal(size=20)
    x[:, 1] = 1.0
    assert np.isfinite(transformed(Rescale(), x)).all()
    large, small = x.copy(), x.copy()
    large[4] *= 1e200
    small[4] *= 1e-200
    np.testing.assert_allclose(transformed(Rescale(), large), transformed(Rescale(), small))


def test_power_takes_the_signed_root() -> None:
    row = np.array([[4.0, -9.0, 0.0]])
    expected = np.array([2.0, -3.0, 0.0]) / np.sqrt(13)
    np.testing.assert_allclose(transformed(Power(0.5), row)[0], expected, rtol=1e-6)


def test_class_mass_equals_the_equations(digits) -> None:
    rng = np.random.default_rng(0)
    z = rng.gamma(0.3, size=(40, 4)) * 1e-9 - 1e-10  # some below 0
    z[:, 2] = 0  # a class without a label
    z[5] = 0  # a point that no label reaches
    unlabeled = np.arange(40) > 3
    pi = np.array([0.4, 0.3, 0.2, 0.1])
    mass, blocks = ClassMass(), torch.from_numpy(z).float().split(13)
    keep = torch.from_numpy(unlabeled).split(13)
    total = sum(mass.statistics(b[k]) for b, k in zip(blocks, keep, strict=True))
    p = torch.cat([mass.apply(b, total, torch.from_numpy(pi)) for b in blocks])
    np.testing.assert_allclose(p.numpy(), oracle.class_mass(z, unlabeled, pi), atol=1e-6)
    assert not p[5].any()
    assert not p[:, 2].any()


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("per_class", [2, 20])
def test_logistic_regression_equals_scikit_learn(digits, classes: int, per_class: int) -> None:
    x, y = digits
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


def test_logistic_regression_with_soft_labels_weights_and_an_absent_class(digits) -> None:
    x, y = digits
    f = oracle.rescale(x)[:30]
    rng = np.random.default_rng(0)
    target, weight = rng.dirichlet(np.ones(4), size=30), rng.uniform(0.5, 2, size=30)
    target[:, 1] = 0
    v, u = oracle.logistic_regression(f, target, weight)
    ours = _logistic_regression.fit(*map(torch.from_numpy, (f, target, weight)))
    p = ours.probabilities(torch.from_numpy(f)).numpy()
    np.testing.assert_allclose(p, oracle.softmax(f @ v.T + u, axis=1), atol=1e-5)
    assert not p[:, 1].any()


def test_balance_evens_out_in_part_and_leaves_labelled_rows_out() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet([4, 1, 0.3], size=50)
    unlabeled = np.arange(50) >= 5
    pi = np.array([0.2, 0.3, 0.5])
    p32 = torch.from_numpy(p).float()
    with by_rows(p32) as each:
        b = balance(p32, torch.from_numpy(unlabeled).float(), torch.from_numpy(pi), each)
    ours = oracle.sum_to_one(p[unlabeled] * b.numpy())
    np.testing.assert_allclose(ours, oracle.balance(p[unlabeled], pi), atol=1e-5)
    before, after = p[unlabeled].mean(axis=0), ours.mean(axis=0)
    assert (np.abs(after - pi) < np.abs(before - pi)).all()


@pytest.mark.parametrize("per_class", [1, 5])
def test_discriminant_gives_every_label_of_the_equations(digits, per_class: int) -> None:
    x, y = digits
    labels = some_labels(y, per_class)
    f, given, pi = oracle.rescale(x), oracle.one_hot(labels, C), np.full(C, 1 / C)
    wn = oracle.graph(f)
    p = oracle.class_mass(oracle.spread(wn, given), labels < 0, pi)
    expected = oracle.discriminant(f, wn, p, given, pi)
    q = refined(f, wn, p, given, pi)
    np.testing.assert_array_equal(q.argmax(axis=1), expected.argmax(axis=1))
    np.testing.assert_allclose(q, expected, atol=1e-3)
    # the steps have something to do here
    assert (expected.argmax(axis=1) != p.argmax(axis=1)).sum() > 10


def test_discriminant_with_soft_labels_weights_an_island_and_an_absent_class(digits) -> None:
    x, y = digits
    f = oracle.rescale(x)
    rng = np.random.default_rng(0)
    wn = oracle.graph(f).tolil()
    island = np.arange(500, 530)
    wn[island] = 0
    wn[:, island] = 0
    wn = wn.tocsr()
    wn.eliminate_zeros()
    labels = some_labels(np.where(np.isin(np.arange(600), island) | (y == 3), 0, y), 3)
    labels[island] = -1
    given = oracle.one_hot(labels, C)
    soft = np.flatnonzero(labels >= 0)[::2]
    given[soft] = 0.7 * given[soft] + 0.3 * oracle.one_hot((labels[soft] + 5) % C, C)
    given[:, 3] = 0
    given = oracle.sum_to_one(given)
    weight, pi = rng.uniform(0.5, 2, size=600), rng.dirichlet(np.full(C, 20.0))
    p = oracle.class_mass(oracle.spread(wn, given), ~given.any(axis=1), pi)
    assert not p[island].any()
    expected = oracle.discriminant(f, wn, p, given, pi, weight)
    q = refined(f, wn, p, given, pi, weight)
    np.testing.assert_array_equal(q.argmax(axis=1), expected.argmax(axis=1))
    np.testing.assert_allclose(q, expected, atol=1e-3)
    np.testing.assert_allclose(q.sum(axis=1), 1, rtol=1e-5)
    assert not q[:, 3].any()
    labeled = given.any(axis=1)
    np.testing.assert_allclose(q[labeled], given[labeled], rtol=1e-6)


def test_discriminant_in_the_order_of_the_graph_and_in_blocks_gives_the_same(
    digits, monkeypatch
) -> None:
    x, y = digits
    labels = some_labels(y, 2)
    f, given, pi = oracle.rescale(x), oracle.one_hot(labels, C), np.full(C, 1 / C)
    wn = oracle.graph(f)
    p = oracle.class_mass(oracle.spread(wn, given), labels < 0, pi)
    before = refined(f, wn, p, given, pi)
    monkeypatch.setattr("dlp_plugins.refiners.discriminant.RENUMBER_FROM", 1)
    monkeypatch.setattr("dlp_plugins.solvers._rows.BLOCK_ENTRIES", 700)
    np.testing.assert_allclose(refined(f, wn, p, given, pi), before, atol=1e-4)


def test_no_refiner_leaves_rows_as_they_are() -> None:
    p = torch.tensor([[0.2, 0.8], [0.0, 0.0]])
    graph, given = graph_of(oracle.sp.identity(2, format="csr")), Given.from_labels(
        torch.tensor([1, -1]), 2
    )
    q = NoRefiner().refine(torch.eye(2), graph, p, given, torch.full((2,), 0.5))
    assert torch.equal(q, p)
