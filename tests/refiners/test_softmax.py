"""Softmax of rows against torch's, of short rows and long ones."""

from __future__ import annotations

import pytest
import torch

from dlp_plugins.refiners._softmax import softmax


@pytest.mark.parametrize("columns", [0, 1, 2, 10, 16, 30])
def test_softmax_is_that_of_torch(columns: int) -> None:
    z = 100 * torch.randn(50, columns, generator=torch.Generator().manual_seed(0))
    if columns > 1:
        z[3, 0] = -torch.inf
    expected = z.double().softmax(dim=1)
    before, out = z.clone(), torch.empty_like(z)
    torch.testing.assert_close(softmax(z).double(), expected, atol=1e-6, rtol=1e-5)
    assert softmax(z, out=out) is out
    torch.testing.assert_close(out.double(), expected, atol=1e-6, rtol=1e-5)
    assert (z == before).all()
    assert softmax(z, out=z) is z
    torch.testing.assert_close(z.double(), expected, atol=1e-6, rtol=1e-5)
