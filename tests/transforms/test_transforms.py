"""Transforms against a plain NumPy port, and what every transform must hold to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles import label_quality as oracle
from oracles.digits import digits

from dlp_plugins.transforms.auto import Auto
from dlp_plugins.transforms.center import Center
from dlp_plugins.transforms.contract import Transform, total_statistics
from dlp_plugins.transforms.none import NoTransform
from dlp_plugins.transforms.power import Power
from dlp_plugins.transforms.rescale import Rescale


def transformed(transform: Transform, x: np.ndarray, block: int = 200) -> np.ndarray:
    blocks = [torch.from_numpy(x[i : i + block]) for i in range(0, len(x), block)]
    total = total_statistics(transform, blocks)
    return torch.cat([transform.apply(rows, total) for rows in blocks]).numpy()


def test_rescale_equals_the_equations() -> None:
    x, _ = digits()
    np.testing.assert_allclose(transformed(Rescale(), x), oracle.rescale(x), atol=1e-6)


@pytest.mark.parametrize("transform", [Rescale(), Auto(), Center(), Power(), NoTransform()])
def test_a_transform_gives_unit_rows_whatever_the_blocks_and_keeps_zero_rows(transform) -> None:
    x = np.random.default_rng(0).normal(size=(50, 8)) * 10.0 ** np.arange(8) + 3
    whole = transformed(transform, x, 50)
    np.testing.assert_allclose(transformed(transform, x, 7), whole, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, rtol=1e-6)
    with_zero = np.insert(x, 3, 0.0, axis=0)
    again = transformed(transform, with_zero)
    assert not again[3].any()
    np.testing.assert_allclose(np.delete(again, 3, axis=0), whole, atol=1e-6)


def test_rescale_takes_constant_columns_and_huge_rows() -> None:
    x = np.zeros((20, 5))
    x[:, 0] = np.random.default_rng(0).normal(size=20)
    x[:, 1] = 1.0
    assert np.isfinite(transformed(Rescale(), x)).all()
    large, small = x.copy(), x.copy()
    large[4] *= 1e200
    small[4] *= 1e-200
    np.testing.assert_allclose(transformed(Rescale(), large), transformed(Rescale(), small))


def test_power_takes_the_signed_root() -> None:
    row = np.array([[4.0, -9.0, 0.0]])
    expected = np.array([2.0, -3.0, 0.0]) / np.sqrt(13)
    np.testing.assert_allclose(transformed(Power(0.5), row)[0], expected, rtol=1e-6)


@pytest.mark.parametrize("columns", [512, 20])
def test_auto_rescales_embeddings_but_not_their_principal_components(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlp_plugins.transforms.auto.COLUMNS", columns)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 30)) @ rng.normal(size=(30, 60)) + 2
    np.testing.assert_allclose(transformed(Auto(), x), oracle.rescale(x), atol=1e-6)
    middle = x - x.mean(axis=0)
    u, s, _ = np.linalg.svd(middle, full_matrices=False)
    components = (u * s)[:, :25]
    np.testing.assert_allclose(
        transformed(Auto(), components), oracle.unit_rows(components), atol=1e-6
    )
    rows = [torch.from_numpy(components)]
    assert "uncorrelated" in (Auto().note(total_statistics(Auto(), rows), 25) or "")
    assert Auto().note(total_statistics(Auto(), [torch.from_numpy(x)]), 60) is None


@pytest.mark.parametrize(("count", "shift"), [(4000, 1.0), (100, 0.0)])
def test_auto_leaves_independent_columns_whatever_their_mean_and_the_number_of_rows(
    count: int, shift: float
) -> None:
    x = np.random.default_rng(0).normal(size=(count, 30)) + shift
    np.testing.assert_allclose(transformed(Auto(), x), oracle.unit_rows(x), atol=1e-6)


def test_where_most_columns_are_constant_the_median_is_of_those_that_vary() -> None:
    x = np.zeros((200, 9))
    x[:, :3] = np.random.default_rng(0).normal(size=(200, 3)) * [1.0, 2.0, 8.0]
    unit = oracle.unit_rows(x)
    s = unit.std(axis=0)
    divisors = np.maximum(s / np.median(s[:3]), 1)
    expected = oracle.unit_rows((unit - unit.mean(axis=0)) / divisors)
    np.testing.assert_allclose(transformed(Rescale(), x), expected, atol=1e-6)
