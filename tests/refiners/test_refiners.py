"""The discriminant against a plain NumPy port, in every label."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from oracles import label_quality as oracle
from oracles.digits import digits, some_labels

from dlp_plugins.graph import Graph
from dlp_plugins.refiners._balance import balance
from dlp_plugins.refiners.contract import Given
from dlp_plugins.refiners.discriminant import Discriminant
from dlp_plugins.refiners.none import NoRefiner
from dlp_plugins.solvers._rows import RowBlocks

C = 10


def refined(
    f: np.ndarray,
    wn: sp.csr_matrix,
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
    return Discriminant().refine(f32, graph_of(wn), p32, known, pi32).probabilities.numpy()


def graph_of(wn: sp.csr_matrix) -> Graph:
    """The oracle's Wn, which is normalised already."""
    return Graph(
        torch.from_numpy(wn.indptr.astype(np.int32)),
        torch.from_numpy(wn.indices.astype(np.int32)),
        torch.from_numpy(wn.data.astype(np.float32)),
        torch.ones(wn.shape[0]),
    )


def test_balance_evens_out_in_part_and_leaves_labelled_rows_out() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet([4, 1, 0.3], size=50)
    unlabeled = np.arange(50) >= 5
    pi = np.array([0.2, 0.3, 0.5])
    p32 = torch.from_numpy(p).float()
    with RowBlocks(p32) as blocks:
        balance(p32, torch.from_numpy(unlabeled).float(), torch.from_numpy(pi), blocks)
    np.testing.assert_array_equal(p32[:5].numpy(), p[:5].astype(np.float32))
    ours = p32.numpy()[unlabeled]
    np.testing.assert_allclose(ours, oracle.balance(p[unlabeled], pi), atol=1e-5)
    before, after = p[unlabeled].mean(axis=0), ours.mean(axis=0)
    assert (np.abs(after - pi) < np.abs(before - pi)).all()


@pytest.mark.parametrize("per_class", [1, 5])
def test_discriminant_gives_every_label_of_the_equations(per_class: int) -> None:
    x, y = digits()
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


def test_discriminant_with_soft_labels_weights_an_island_and_an_absent_class() -> None:
    x, y = digits()
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
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, y = digits()
    labels = some_labels(y, 2)
    f, given, pi = oracle.rescale(x), oracle.one_hot(labels, C), np.full(C, 1 / C)
    wn = oracle.graph(f)
    p = oracle.class_mass(oracle.spread(wn, given), labels < 0, pi)
    before = refined(f, wn, p, given, pi)
    monkeypatch.setattr("dlp_plugins.refiners.discriminant.MIN_RENUMBERED_ENTRIES", 1)
    monkeypatch.setattr("dlp_plugins.solvers._rows.BLOCK_ENTRIES", 700)
    np.testing.assert_allclose(refined(f, wn, p, given, pi), before, atol=1e-4)


@pytest.mark.parametrize("d", [1, 3, 600])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_classes_that_do_not_vary_are_no_error(d: int, value: float) -> None:
    f = np.full((8, d), value / d**0.5)
    labels = np.array([0, 1, -1, -1, -1, -1, -1, -1])
    p = np.full((8, 2), 0.5)
    q = refined(
        f, sp.csr_matrix(np.ones((8, 8)) / 8), p, oracle.one_hot(labels, 2), np.full(2, 0.5)
    )
    np.testing.assert_allclose(q.sum(axis=1), 1, rtol=1e-5)
    f[1] *= -1
    q = refined(
        f, sp.csr_matrix(np.ones((8, 8)) / 8), p, oracle.one_hot(labels, 2), np.full(2, 0.5)
    )
    np.testing.assert_allclose(q.sum(axis=1), 1, rtol=1e-5)


def test_no_refiner_leaves_rows_as_they_are() -> None:
    p = torch.tensor([[0.2, 0.8], [0.0, 0.0]])
    graph, given = (
        graph_of(sp.identity(2, format="csr")),
        Given.from_labels(torch.tensor([1, -1]), 2),
    )
    q = NoRefiner().refine(torch.eye(2), graph, p, given, torch.full((2,), 0.5))
    assert torch.equal(q.probabilities, p)


def test_a_point_seen_again_gets_the_label_it_had() -> None:
    x, y = digits()
    labels = some_labels(y, 5)
    f, given, pi = oracle.rescale(x), oracle.one_hot(labels, C), np.full(C, 1 / C)
    wn = oracle.graph(f)
    wn.sort_indices()
    p = oracle.class_mass(oracle.spread(wn, given), labels < 0, pi)
    f32, p32, pi32 = (torch.from_numpy(a).float() for a in (f, p, pi))
    known = Given.from_labels(torch.from_numpy(labels), C)
    found = Discriminant().refine(f32, graph_of(wn), p32, known, pi32)
    q = found.probabilities
    assert found.classifier is not None
    again = found.classifier.probabilities(f32, graph_of(wn).matmul(q))
    new = torch.from_numpy(labels) < 0
    assert (again.argmax(dim=1) == q.argmax(dim=1))[new].float().mean() > 0.99
    torch.testing.assert_close(again[new], q[new], atol=0.05, rtol=0)


def test_a_class_of_which_there_are_to_be_none_keeps_its_scores():
    p = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.8, 0.0], [0.0, 0.0, 1.0]])
    with RowBlocks(p) as blocks:
        b = balance(p, torch.ones(3), torch.tensor([0.5, 0.5, 0.0]), blocks)
    assert p.isfinite().all()
    assert b[2] == 1
