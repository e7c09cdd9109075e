"""L-BFGS against minima known beforehand, and SciPy's on the same function."""

from __future__ import annotations

import numpy as np
import scipy.optimize
import torch
from torch import Tensor

from dlp_plugins.refiners._lbfgs import minimize


def test_a_quadratic_of_different_curvatures() -> None:
    scale = torch.logspace(-1, 2, 40, dtype=torch.float64)
    center = torch.linspace(-2, 2, 40, dtype=torch.float64)

    def loss(x: Tensor) -> tuple[float, Tensor]:
        off = x - center
        return float((scale * off.square()).sum() / 2), scale * off

    found = minimize(loss, torch.zeros(40, dtype=torch.float64), 1e-8, 1000)
    assert (scale * (found - center)).abs().max() <= 1e-8


def test_the_same_minimum_as_scipy_in_about_as_many_evaluations() -> None:
    """log-sum-exp of random planes with a small penalty, as logistic regression has it."""
    rng = np.random.default_rng(0)
    planes, offsets = (
        torch.from_numpy(rng.normal(size=(200, 30))),
        torch.from_numpy(rng.normal(size=200)),
    )
    evaluations = [0]

    def loss(x: Tensor) -> tuple[float, Tensor]:
        evaluations[0] += 1
        z = planes @ x + offsets
        value = torch.logsumexp(z, 0) + 0.005 * x.square().sum()
        return float(value), planes.T @ z.softmax(0) + 0.01 * x

    found = minimize(loss, torch.zeros(30, dtype=torch.float64), 1e-7, 1000)
    ours = evaluations[0]
    theirs = scipy.optimize.minimize(
        lambda x: tuple(map(np.asarray, loss(torch.from_numpy(x)))), np.zeros(30), jac=True,
        method="L-BFGS-B", options={"gtol": 1e-7, "ftol": 0.0},
    )  # fmt: skip
    np.testing.assert_allclose(found, theirs.x, atol=1e-5)
    assert ours < 2 * theirs.nfev


def test_it_ends_at_the_limit_of_iterations_and_at_rounding() -> None:
    def loss(x: Tensor) -> tuple[float, Tensor]:
        return float(1e6 + x.square().sum()), 2 * x

    far = minimize(loss, torch.full((3,), 5.0, dtype=torch.float64), 1e-30, 1)
    assert far.abs().max() > 0.1
    near = minimize(loss, torch.full((3,), 5.0, dtype=torch.float64), 0.0, 1000)
    assert near.abs().max() < 1e-4
