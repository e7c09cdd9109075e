from __future__ import annotations

import numpy as np
import pytest
import torch

from dlp_plugins.embeddings.clock import Clock, silent
from dlp_plugins.embeddings.defaults import propagation_recipe
from dlp_plugins.inputs import unit_rows
from dlp_plugins.labeling.live import Space
from dlp_plugins.recipe.build import build_propagator


def clusters(n=300, d=8, c=4, seed=0):
    """Embeddings [n, d] around c directions, the last two rows equal, and their classes [n]."""
    rng = np.random.default_rng(seed)
    y = rng.integers(c, size=n)
    x = (2 * np.eye(d)[y] + 0.6 * rng.standard_normal((n, d))).astype(np.float32)
    x[-1], y[-1] = x[-2], y[-2]
    return x, y


@pytest.fixture(scope="session")
def points():
    return clusters()


@pytest.fixture(scope="session")
def space(points):
    propagator = build_propagator(propagation_recipe([], len(points[0])))
    return Space.of(propagator, unit_rows(torch.from_numpy(points[0])), Clock(silent))
