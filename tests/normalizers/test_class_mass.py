"""Class mass against a plain NumPy port."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles import label_quality as oracle

from dlp_plugins.normalizers.class_mass import ClassMass
from dlp_plugins.normalizers.sinkhorn import Sinkhorn


def test_class_mass_equals_the_equations() -> None:
    rng = np.random.default_rng(0)
    z = rng.gamma(0.3, size=(40, 4)) * 1e-9 - 1e-10  # some below 0
    z[:, 2] = 0  # a class without a label
    z[5] = 0  # a point that no label reaches
    unlabeled = np.arange(40) > 3
    pi = np.array([0.4, 0.3, 0.2, 0.1])
    mass, blocks = ClassMass(), torch.from_numpy(z).float().split(13)
    keep = torch.from_numpy(unlabeled).split(13)
    total = mass.fit(lambda: zip(blocks, keep, strict=True), torch.from_numpy(pi))
    p = torch.cat([mass.apply(b, total, torch.from_numpy(pi)) for b in blocks])
    np.testing.assert_allclose(p.numpy(), oracle.class_mass(z, unlabeled, pi), atol=1e-6)
    assert not p[5].any()
    assert not p[:, 2].any()


@pytest.mark.parametrize("normalizer", [ClassMass(), Sinkhorn()])
def test_a_class_that_only_labelled_points_have_a_score_of_is_theirs(normalizer) -> None:
    """An island that is labelled wholly, and every point labelled."""
    z = torch.tensor([[2.0, 0, 0], [1, 3, 0], [0, 0, 0.5], [2, 1, 0], [1, 2, 0]])
    shares = torch.full((3,), 1 / 3)
    for unlabeled in (torch.tensor([False, False, False, True, True]), torch.zeros(5).bool()):
        total = normalizer.fit(lambda unlabeled=unlabeled: [(z, unlabeled)], shares)
        p = normalizer.apply(z, total, shares)
        assert p.argmax(dim=1).tolist() == [0, 1, 2, 0, 1]
        torch.testing.assert_close(p.sum(dim=1), torch.ones(5))
