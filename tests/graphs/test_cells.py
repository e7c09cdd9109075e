"""`cells` with so many cells that they come in families."""

from __future__ import annotations

import numpy as np
import torch

from dlp_plugins.graphs import _cells_cpu, _kmeans
from dlp_plugins.graphs.contract import recall
from dlp_plugins.registry import graphs


def test_families_of_cells_find_as_much(monkeypatch):
    """The nearest cells are chosen among those of the nearest families alone."""
    torch.manual_seed(0)
    centers = torch.randn(40, 16)
    v = centers[torch.arange(12_000) % 40] + 0.9 * torch.randn(12_000, 16)
    v = torch.nn.functional.normalize(v @ torch.randn(16, 32), dim=1)
    exact = graphs.build("exact", k=10).neighbors(v)
    builder = graphs.build("cells", k=10, size=64)
    among_all = recall(builder.neighbors(v), exact)
    monkeypatch.setattr(_kmeans, "MAX_LINKED_CELLS", 100)
    monkeypatch.setattr(_cells_cpu, "PROBED_FAMILIES", 8)
    found = builder.neighbors(v)
    assert recall(found, exact) > among_all - 0.02 > 0.9
    assert torch.equal(builder.neighbors(v).indices, found.indices)


def test_families_hold_their_share_of_the_cells(monkeypatch):
    monkeypatch.setattr(_kmeans, "MAX_LINKED_CELLS", 50)
    random = np.random.default_rng(0)
    v = random.standard_normal((6000, 8)).astype(np.float32)
    v[:4000] = v[0] + 0.2 * v[:4000]  # most points lie near each other
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    found = _kmeans.find_centroids(v, 100, seed=0)
    assert found.start[0] == 0
    assert found.start[-1] == len(found.values)
    assert abs(len(found.values) - 100) <= len(found.families)
    cell_of = _kmeans._nearest(v, found.values)
    assert np.bincount(cell_of).max() < 6 * 60  # of 60 on average
    few = np.repeat(v[:3], 40, axis=0)  # fewer different points than families
    assert len(_kmeans.find_centroids(few, 60, seed=0).values) > 0
