"""Leaving out a label equals a refit without it, in dense float64 and by the real solver."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dlp_plugins.graph import Graph
from dlp_plugins.propagation import Propagator, equal_shares, label_matrix
from dlp_plugins.propagation.leave_one_out import LeaveOneOut

N, C, ALPHA = 300, 4, 0.9


@pytest.fixture(scope="module")
def propagator() -> Propagator:
    return Propagator.default(
        k=6, alpha=ALPHA, tolerance=1e-7, max_iterations=500, normalizer="class_mass"
    )


@pytest.fixture(scope="module")
def graph(propagator: Propagator) -> Graph:
    x = torch.randn(N, 8, generator=torch.Generator().manual_seed(1))
    x[20] = 0
    return propagator.build_graph(x)


@pytest.fixture(scope="module")
def labels() -> torch.Tensor:
    """30 labels of classes 0 to 2, one of them of a node without edges, and one of class 3."""
    labels = torch.full((N,), -1)
    labels[::10] = torch.arange(30) % 3
    labels[50] = 3
    return labels


def left_out(graph: Graph, labels: torch.Tensor, **more):
    nodes = (labels >= 0).nonzero().squeeze(1)
    return nodes, LeaveOneOut.of(graph, nodes, alpha=ALPHA)(labels[nodes], C, **more)


def without(labels: torch.Tensor, node: int) -> torch.Tensor:
    rest = labels.clone()
    rest[node] = -1
    return rest


def test_equals_a_dense_refit(graph, labels):
    wn = graph.to_scipy().toarray().astype(np.float64)
    g = np.linalg.inv(np.eye(N) - ALPHA * wn)
    nodes, found = left_out(graph, labels)
    for i, node in enumerate(nodes.tolist()):
        rest = without(labels, node).numpy()
        y = np.stack([(rest == j) / max(1, (rest == j).sum()) for j in range(C)], axis=1)
        z = g @ y
        np.testing.assert_allclose(found.scores[i], z[node], rtol=1e-5, atol=1e-8)
        mass = z[rest < 0].sum(axis=0)
        p = np.divide(z[node], mass, out=np.zeros(C), where=mass > 0)
        p = p / p.sum() if p.sum() else p
        np.testing.assert_allclose(found.probabilities[i], p, rtol=0, atol=1e-5)


def test_equals_a_refit_by_the_real_solver(propagator, graph, labels):
    nodes, found = left_out(graph, labels)
    for i, node in enumerate(nodes.tolist()):
        rest = without(labels, node)
        z = propagator.solver.solve(graph, label_matrix(rest, C)).scores
        p = propagator.normalizer.apply(
            z, propagator.normalizer.statistics(z, rest < 0), equal_shares(C)
        )
        np.testing.assert_allclose(found.scores[i], z[node], rtol=0, atol=1e-5)
        np.testing.assert_allclose(found.probabilities[i], p[node], rtol=0, atol=1e-5)


def test_without_its_only_label_a_class_has_no_score(graph, labels):
    nodes, found = left_out(graph, labels)
    assert float(found.scores[nodes == 50, 3]) == 0


def test_no_other_label_reaches_a_node_without_edges(graph, labels):
    nodes, found = left_out(graph, labels)
    assert not found.scores[nodes == 20].any()
    assert not found.probabilities[nodes == 20].any()


def test_weights_are_what_labels_count(graph, labels):
    """A weight of 0 is a label that is not there, but for the mass of its own node."""
    nodes, _ = left_out(graph, labels)
    weights = torch.ones(len(nodes))
    weights[3] = 0
    _, found = left_out(graph, labels, weights=weights)
    _, expected = left_out(graph, without(labels, int(nodes[3])))
    rest = torch.arange(len(nodes)) != 3
    torch.testing.assert_close(found.scores[rest], expected.scores, rtol=0, atol=1e-6)
    _, doubled = left_out(graph, labels, weights=torch.full((len(nodes),), 2.0))
    _, plain = left_out(graph, labels)
    torch.testing.assert_close(doubled.scores, plain.scores)


def test_other_labels_of_the_same_node_stay(graph):
    """Two labels of one node: each sees the other, at G_ii."""
    nodes, labels = torch.tensor([5, 5, 80]), torch.tensor([0, 1, 0])
    prepared = LeaveOneOut.of(graph, nodes, alpha=ALPHA)
    found = prepared(labels, 2)
    torch.testing.assert_close(found.scores[0, 1], prepared.own[1], rtol=0, atol=1e-6)
    torch.testing.assert_close(found.scores[1, 0] * 2 - found.scores[0, 0], prepared.own[0],
                               rtol=0, atol=1e-6)  # fmt: skip


def test_some_labels_are_left_out_as_among_all(graph, labels):
    nodes, expected = left_out(graph, labels)
    which = torch.tensor([4, 0, 11])
    prepared = LeaveOneOut.of(graph, nodes, which=which, alpha=ALPHA)
    found = prepared(labels[nodes], C)
    torch.testing.assert_close(found.scores, expected.scores[which], rtol=0, atol=1e-9)
    torch.testing.assert_close(
        found.probabilities, expected.probabilities[which], rtol=0, atol=1e-7
    )
    every = LeaveOneOut.of(graph, nodes, alpha=ALPHA).strongest
    assert (prepared.strongest == every[which]).all()


def test_the_strongest_labels_are_those_of_the_largest_influence(graph, labels):
    wn = graph.to_scipy().toarray().astype(np.float64)
    g = np.linalg.inv(np.eye(N) - ALPHA * wn)
    nodes = (labels >= 0).nonzero().squeeze(1)
    found = LeaveOneOut.of(graph, nodes, alpha=ALPHA, memory=1)
    among = g[np.ix_(nodes, nodes)]
    np.testing.assert_allclose(found.own, np.diag(among), rtol=0, atol=2e-9)
    np.fill_diagonal(among, -1)
    expected = np.argsort(-among, axis=1)[:, :3]
    reached = np.take_along_axis(among, expected, axis=1) > 1e-9
    assert (found.strongest[:, :3].numpy() == np.where(reached, expected, -1)).all()
    assert (found.strongest[nodes == 20] == -1).all()


@pytest.mark.parametrize("tolerance", [1e-9, 1e-4])
def test_a_label_alone_in_its_component_has_no_score_at_any_tolerance(graph, labels, tolerance):
    nodes = (labels >= 0).nonzero().squeeze(1)
    made = LeaveOneOut.of(graph, nodes, alpha=ALPHA, tolerance=tolerance)
    classes = labels[nodes].clone()
    classes[nodes == 20] = 0  # others have this class too
    found = made(classes, C)
    assert not found.probabilities[nodes == 20].any()
