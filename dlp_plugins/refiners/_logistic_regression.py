"""Multinomial logistic regression, equal to scikit-learn's, without its second of import."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlp_plugins.refiners._lbfgs import minimize
from dlp_plugins.refiners._softmax import softmax

MAX_ITERATIONS = 1000
TOLERANCE = 1e-4  # largest entry of the gradient at which to stop: probabilities to about 1e-5


@dataclass(frozen=True)
class LogisticRegression:
    """p_i = softmax(f_i V + u).

    weights: V [d, c] float64.
    intercepts: u [c] float64; -inf for a class without an example.
    """

    weights: Tensor
    intercepts: Tensor

    def probabilities(self, f: Tensor) -> Tensor:
        """[b, c] of rows [b, d], in their type; 0 for a class without an example."""
        return softmax(torch.addmm(self.intercepts.to(f), f, self.weights.to(f)))


def fit(
    f: Tensor,
    target: Tensor,
    weight: Tensor,
    strength: float = 10.0,
    start: LogisticRegression | None = None,
) -> LogisticRegression:
    """Logistic regression on rows f [m, d] with distributions [m, c] and weights [m], in float64.

    Minimises |V|^2 / 2 - strength sum_ij g_ij log p_ij with balanced classes: g_ij = weight_i
    target_ij total / (present N_j), N_j the sum of column j of weight_i target_ij, total their sum,
    `present` the number of classes with N_j > 0. With plain labels that is scikit-learn's
    LogisticRegression(C=strength, class_weight="balanced"), two classes included, which it fits by
    one vector: the same as a penalty of |V|^2.

    Args:
        start: of nearly the same examples, from which it usually takes fewer steps; it may lack the
            last classes.
    """
    device = f.device
    f, g = f.double().cpu(), (target.double() * weight.double()[:, None]).cpu()
    mass = g.sum(dim=0)
    present = mass > 0
    c = int(present.sum())
    g = g[:, present] * (mass.sum() / (c * mass[present]))
    row_mass = g.sum(dim=1, keepdim=True)
    penalty = 2.0 if c == 2 else 1.0
    # V lies in the span of the rows of f, so where these are fewer than the columns it is found in
    # a basis of that span: f = x basis^T, |V| = |basis^T V|.
    x, basis = f, None
    if f.shape[0] < f.shape[1]:
        basis, upper = torch.linalg.qr(f.T)
        x = upper.T.contiguous()

    def unpack(theta: Tensor) -> tuple[Tensor, Tensor]:
        both = theta.view(-1, c)
        return both[:-1], both[-1]

    def loss(theta: Tensor) -> tuple[float, Tensor]:
        v, u = unpack(theta)
        log_p = torch.addmm(u, x, v).log_softmax(dim=1)
        slope = strength * (row_mass * log_p.exp() - g)
        value = penalty * v.square().sum() / 2 - strength * (g * log_p).sum()
        gradient = torch.cat([torch.addmm(v, x.T, slope, beta=penalty), slope.sum(0, keepdim=True)])
        return float(value), gradient.flatten()

    theta = torch.zeros(x.shape[1] + 1, c, dtype=torch.float64)
    if start is not None:
        last = start.intercepts.cpu()
        # the columns of present classes that it knows
        known = (present[: len(last)] & last.isfinite()).nonzero().squeeze(1)
        columns = (present.cumsum(0) - 1)[known]
        v = start.weights.cpu()[:, known]
        theta[:-1, columns] = v if basis is None else basis.T @ v
        theta[-1, columns] = last[known]
    v, u = unpack(minimize(loss, theta.flatten(), TOLERANCE, MAX_ITERATIONS))
    weights = torch.zeros(f.shape[1], len(mass), dtype=torch.float64)
    weights[:, present] = v if basis is None else basis @ v
    intercepts = torch.full_like(mass, -torch.inf)
    intercepts[present] = u
    return LogisticRegression(weights.to(device), intercepts.to(device))
