"""Sinkhorn against a plain NumPy port."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles import class_sizes as oracle

from dlp_plugins.normalizers.class_mass import ClassMass
from dlp_plugins.normalizers.sinkhorn import Sinkhorn


def by_blocks(normalizer, z, unlabeled, pi):
    blocks = torch.from_numpy(z).float().split(13)
    keep = torch.from_numpy(unlabeled).split(13)
    shares = torch.from_numpy(pi).float()
    total = normalizer.fit(lambda: zip(blocks, keep, strict=True), shares)
    return torch.cat([normalizer.apply(b, total, shares) for b in blocks]).numpy()


@pytest.mark.parametrize("scale", [1e-30, 1.0])  # scores of few labels over many points are small
def test_sinkhorn_equals_the_equations(scale) -> None:
    rng = np.random.default_rng(0)
    z = (rng.gamma(0.3, size=(60, 4)) - 0.001) * scale  # some below 0
    z[:, 2] = 0  # a class without a label
    z[5] = 0  # a point that no label reaches
    unlabeled = np.arange(60) > 3
    pi = np.array([0.6, 0.25, 0.1, 0.05])
    p = by_blocks(Sinkhorn(), z, unlabeled, pi)
    np.testing.assert_allclose(p, oracle.sinkhorn(z, unlabeled, pi), atol=2e-3)
    np.testing.assert_allclose(p.sum(axis=1)[np.arange(60) != 5], 1, atol=1e-5)
    rows = unlabeled & p.any(axis=1)
    wanted = rows.sum() * pi[[0, 1, 3]] / 0.9
    np.testing.assert_allclose(p[rows].sum(axis=0)[[0, 1, 3]], wanted, rtol=1.1e-3)
    assert not p[5].any()
    assert not p[:, 2].any()
    # class mass, one step, leaves the sizes only near
    near = by_blocks(ClassMass(), z, unlabeled, pi)
    assert np.abs(near[rows].sum(axis=0)[[0, 1, 3]] / wanted - 1).max() > 0.01


def test_islands_that_allow_no_such_sizes_still_get_probabilities() -> None:
    z = np.zeros((30, 2))
    z[:20, 0], z[20:, 1] = 1, 1  # two islands, of sizes 20 and 10, shares wanted: equal
    p = by_blocks(Sinkhorn(), z, np.full(30, True), np.array([0.5, 0.5]))
    np.testing.assert_array_equal(p, z)
