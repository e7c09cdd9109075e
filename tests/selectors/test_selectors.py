"""Selectors against their equations in NumPy, on a small graph."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from dlp_plugins.propagation import Propagator
from dlp_plugins.registry import selectors
from dlp_plugins.selectors import typiclust
from dlp_plugins.selectors.contract import Pool
from dlp_plugins.selectors.coverage import Coverage
from dlp_plugins.selectors.margin import Margin, spread_out
from dlp_plugins.selectors.typiclust import TypiClust, typicality
from dlp_plugins.selectors.v_opt import VOpt

pytestmark = pytest.mark.usefixtures("one_thread")
ALPHA = 0.9


def blobs(sizes: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points of well separated clusters of these sizes, and their clusters."""
    random = torch.Generator().manual_seed(seed)
    truth = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    centers = 2 * torch.eye(len(sizes), 8)[truth]
    x = centers + 0.3 * torch.randn(len(truth), 8, generator=random)
    return torch.nn.functional.normalize(x, dim=1), truth


def pool_of(f: Tensor, labeled: tuple[int, ...] = (), k: int = 6) -> Pool:
    labels = torch.full((len(f),), -1)
    labels[list(labeled)] = 0
    return Pool(f, labels, Propagator.default(k=k).build_graph(f))


def inverse(pool: Pool) -> np.ndarray:
    assert pool.graph is not None
    wn = pool.graph.to_scipy().toarray().astype(np.float64)
    return np.linalg.inv(np.eye(len(wn)) - ALPHA * wn)


@pytest.mark.parametrize("labeled", [(), (3, 50, 51, 90)])
def test_coverage_is_the_greedy_cover(labeled):
    pool = pool_of(blobs((40, 30, 20, 10))[0], labeled)
    g, n = inverse(pool), len(pool.labels)

    def left(r: np.ndarray, i: int) -> np.ndarray:
        others = np.where(np.arange(n) == i, 0, g[:, i])
        r = r * (1 - others / others.max())
        r[i] = 0
        return r

    r = np.ones(n)
    for i in labeled:
        r = left(r, i)
    expected = []
    for _ in range(12):
        gain = g @ r
        gain[[*labeled, *expected]] = -np.inf
        expected.append(int(gain.argmax()))
        r = left(r, expected[-1])
    assert Coverage(alpha=ALPHA, tolerance=1e-6).select(pool, 12).tolist() == expected


@pytest.mark.parametrize("s", [0.01, 1.0])
@pytest.mark.parametrize("labeled", [(), (3, 50, 51)])
def test_v_opt_is_the_greedy_reduction_of_variance(labeled, s):
    pool = pool_of(blobs((40, 30, 20))[0], labeled)
    g = inverse(pool)

    def without(k: int) -> np.ndarray:
        return g - np.outer(g[:, k], g[k]) / (s + g[k, k])

    for k in labeled:
        g = without(k)
    expected = []
    for _ in range(8):
        gain = np.square(g).sum(axis=0) / (s + g.diagonal())
        gain[[*labeled, *expected]] = -np.inf
        expected.append(int(gain.argmax()))
        g = without(expected[-1])
    assert VOpt(alpha=ALPHA, noise=s, tolerance=1e-6).select(pool, 8).tolist() == expected


def test_v_opt_chooses_among_candidates_alone():
    pool = pool_of(blobs((40, 30, 20))[0])
    few = VOpt(candidates=10, seed=1).select(pool, 10)
    assert sorted(few.tolist()) != sorted(VOpt(candidates=10, seed=2).select(pool, 10).tolist())
    assert len(VOpt(candidates=3).select(pool, 20).unique()) == 20


@pytest.mark.parametrize("name", ["coverage", "typiclust", "v_opt"])
def test_every_cluster_gets_a_point_before_any_gets_two(name):
    f, truth = blobs((40, 25, 15, 10, 10))
    chosen = selectors.build(name).select(pool_of(f), 5)
    assert sorted(truth[chosen].tolist()) == [0, 1, 2, 3, 4]
    labeled = tuple(int((truth == j).nonzero()[3]) for j in (0, 2, 3))
    rest = selectors.build(name).select(pool_of(f, labeled), 2)
    assert sorted(truth[rest].tolist()) == [1, 4]


def test_typicality_is_the_mean_similarity_to_the_nearest():
    f = blobs((60,))[0].numpy()
    similarity = np.sort(f @ f.T, axis=1)[:, ::-1]
    np.testing.assert_allclose(
        typicality(f, np.arange(60), np.arange(60)), similarity[:, :21].mean(axis=1), atol=1e-6
    )


def test_typiclust_takes_the_most_typical_of_the_largest_cluster_first():
    f, truth = blobs((50, 30))
    chosen = TypiClust().select(pool_of(f), 2)
    assert truth[chosen].tolist() == [0, 1]
    for j, point in enumerate(chosen.tolist()):
        own = (truth == j).nonzero().squeeze(1).numpy()
        assert point == own[typicality(f.numpy(), own, own).argmax()]


def test_typiclust_with_fewer_clusters_than_points_spreads_within_them():
    f, truth = blobs((40, 40))
    chosen = TypiClust(max_clusters=2).select(pool_of(f), 8)
    assert torch.bincount(truth[chosen]).tolist() == [4, 4]
    both = (f[chosen] @ f[chosen].T).fill_diagonal_(0)
    assert float(both.max()) < 0.98


def test_margin_takes_the_least_certain_that_are_no_neighbours():
    pool = pool_of(blobs((30, 30))[0], labeled=(0, 30))
    assert pool.graph is not None
    p = torch.rand(60, 3, generator=torch.Generator().manual_seed(0))
    p /= p.sum(dim=1, keepdim=True)
    p[7] = 0  # no label reaches it
    chosen = Margin().select(Pool(pool.descriptors, pool.labels, pool.graph, p), 6).tolist()
    ordered = np.sort(p.numpy(), axis=1)
    margin = ordered[:, -1] - ordered[:, -2]
    linked = pool.graph.to_scipy().toarray() > 0
    expected: list[int] = []
    for i in np.argsort(margin, kind="stable").tolist():
        if i not in (0, 30) and not linked[i, expected].any():
            expected.append(i)
    assert chosen == expected[:6]
    assert chosen[0] == 7


def test_passed_over_points_come_when_no_others_are_left():
    pool = pool_of(blobs((6,))[0], k=5)  # all are neighbours
    assert pool.graph is not None
    assert spread_out(torch.tensor([4, 2, 0, 1]), pool.graph, 3).tolist() == [4, 2, 0]


def test_random_depends_on_the_seed_alone():
    pool = pool_of(blobs((30,))[0], labeled=(5,))
    one, same, other = (
        selectors.build("random", seed=s).select(pool, 29).tolist() for s in (0, 0, 1)
    )
    assert one == same != other
    assert sorted(one) == sorted(other) == [i for i in range(30) if i != 5]


def test_of_many_members_those_compared_with_are_no_more_typical(monkeypatch):
    """Every second one is compared with: a point counts itself whether it is one of them or not."""
    monkeypatch.setattr(typiclust, "MOST_COMPARED", 30)
    f, every = blobs((60,))[0].numpy(), np.arange(60)
    others = f @ f[::2].T
    others[every[::2], np.arange(30)] = -1
    nearest = np.sort(others, axis=1)[:, ::-1][:, :20]
    expected = (1 + nearest.sum(axis=1)) / 21
    np.testing.assert_allclose(typicality(f, every, every), expected, atol=1e-6)
