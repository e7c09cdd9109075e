"""Columns of G = (I - alpha Wn)^(-1) against a dense inverse in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dlp_plugins.errors import ConvergenceError, GraphError, ParameterError
from dlp_plugins.graph import Graph
from dlp_plugins.propagation import (
    Propagator,
    _inverse,
    influence,
    influence_among,
    influence_blocks,
)

POINTS = [7, 0, 123, 299, 7]


@pytest.fixture(scope="module")
def graph() -> Graph:
    """300 points, one of them a zero vector: a node without edges."""
    x = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    x[123] = 0
    return Propagator.default(k=6).build_graph(x)


def inverse(graph: Graph, alpha: float) -> torch.Tensor:
    wn = torch.from_numpy(graph.to_scipy().toarray().astype(np.float64))
    return torch.linalg.inv(torch.eye(len(wn), dtype=torch.float64) - alpha * wn)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.9, 0.99, 0.9999])
@pytest.mark.parametrize("tolerance", [1e-7, 1e-11])
def test_columns_equal_the_dense_inverse(graph, alpha, tolerance):
    found = influence(graph, POINTS, alpha=alpha, tolerance=tolerance)
    assert found.dtype == torch.float64
    g = inverse(graph, alpha)
    unit = torch.eye(300, dtype=torch.float64)[:, POINTS]
    residual = (unit - torch.linalg.solve(g, found)).norm(dim=0)
    assert residual.max() <= 1.01 * tolerance
    torch.testing.assert_close(found, g[:, POINTS], rtol=0, atol=tolerance / (1 - alpha))
    assert found[:, 2].nonzero().squeeze(1).tolist() == [123]


def test_chunks_and_renumbering_change_nothing(graph, monkeypatch):
    expected = influence(graph, POINTS)
    monkeypatch.setattr(_inverse, "MIN_RENUMBERED_ENTRIES", 1)
    blocks = list(influence_blocks(graph, POINTS, memory=2 * 300 * _inverse.COLUMN_BYTES))
    assert [(c.start, c.stop) for c, _ in blocks] == [(0, 2), (2, 4), (4, 5)]
    torch.testing.assert_close(torch.cat([b for _, b in blocks], 1), expected, rtol=0, atol=1e-6)
    assert len(list(influence_blocks(graph, POINTS, memory=1))) == len(POINTS)


def test_among_holds_the_rows_of_the_points_and_all_sums(graph):
    g = inverse(graph, 0.9)
    found = influence_among(graph, torch.tensor(POINTS), memory=3 * 300 * _inverse.COLUMN_BYTES)
    torch.testing.assert_close(found.values, g[POINTS][:, POINTS], rtol=0, atol=1e-6)
    torch.testing.assert_close(found.sums, g[:, POINTS].sum(dim=0), rtol=0, atol=1e-5)


def test_no_points_no_columns(graph):
    assert influence(graph, []).shape == (300, 0)


@pytest.mark.parametrize("points", [[300], [-1], [0.5], [[1]]])
def test_points_must_be_nodes(graph, points):
    with pytest.raises(GraphError, match="points must be"):
        influence(graph, points)


@pytest.mark.parametrize("wrong", [{"alpha": 1.0}, {"alpha": -0.1}, {"tolerance": 0.0}])
def test_parameters_out_of_range(graph, wrong):
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        influence_blocks(graph, [0], **wrong)


def test_a_tolerance_that_is_not_reached_is_an_error(graph, monkeypatch):
    monkeypatch.setattr(_inverse, "MAX_ITERATIONS", 1)
    with pytest.raises(ConvergenceError, match="after 8 rounds"):
        influence(graph, [0], alpha=0.99)
