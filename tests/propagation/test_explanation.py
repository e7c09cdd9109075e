"""Shares are additive and exact for Z; a path is the strongest of all."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from dlp_plugins.graph import Graph
from dlp_plugins.propagation import Propagator, label_matrix
from dlp_plugins.propagation.explanation import center_distances, paths_to, shares_of

ALPHA = 0.9


@pytest.fixture(scope="module")
def graph() -> Graph:
    x = torch.randn(60, 5, generator=torch.Generator().manual_seed(3))
    x[7] = 0
    return Propagator.default(k=3).build_graph(x)


def test_shares_add_up_to_the_score(graph):
    labels = torch.full((60,), -1)
    labels[:12] = torch.arange(12) % 3
    wn = graph.to_scipy().toarray().astype(np.float64)
    g = np.linalg.inv(np.eye(60) - ALPHA * wn)
    y = label_matrix(labels, 3)
    z = g @ y.numpy()
    for node in (0, 20, 40):
        for j in range(3):
            found = shares_of(graph, y[:, j], node, ALPHA)
            assert found.score == pytest.approx(z[node, j], abs=1e-6)
            assert found.shares.sum() == pytest.approx(1)
            assert (np.diff(found.shares) <= 0).all()
            expected = g[node, found.nodes] / 4 / z[node, j]
            np.testing.assert_allclose(found.shares, expected, rtol=0, atol=1e-5)
            assert (labels[found.nodes] == j).all()


def test_a_node_that_no_label_reaches_has_no_shares(graph):
    y = torch.zeros(60)
    y[0] = 1
    found = shares_of(graph, y, 7, ALPHA)
    assert (found.score, len(found.nodes)) == (0.0, 0)


def test_the_path_is_the_strongest(graph):
    """Against the maximum over all walks of at most six edges, by dynamic programming."""
    wn = ALPHA * graph.to_scipy().toarray().astype(np.float64)
    carried = np.eye(60)
    for _ in range(12):
        carried = np.maximum(carried, (carried[:, :, None] * wn[None]).max(axis=1))
    for source, path in zip((0, 33, 59), paths_to(graph, 20, (0, 33, 59), ALPHA), strict=True):
        assert (path[0], path[-1]) == (source, 20)
        weight = np.prod([wn[a, b] for a, b in itertools.pairwise(path)])
        assert weight == pytest.approx(carried[source, 20])


def test_there_is_no_path_between_components(graph):
    assert paths_to(graph, 20, [7, 20], ALPHA) == [[], [20]]


def test_the_distance_of_a_class_without_mass_is_infinite():
    f = torch.tensor([[1.0, 0], [0, 1], [0, 1]])
    q = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 0]])
    np.testing.assert_allclose(center_distances(f, q, 1), [2**0.5, 0, np.inf])
