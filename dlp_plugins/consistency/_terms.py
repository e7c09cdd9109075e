"""What several consistency methods share: distances between predictions, mixing."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from dlp_plugins.network import Output


def squared_error(p: Tensor, q: Tensor) -> Tensor:
    """(1/c) sum_j (p_ij - q_ij)^2 of probabilities [b, c]; gives [b]."""
    return (p - q).square().mean(dim=1)


def kl_divergence(target: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) = sum_j p_ij (log p_ij - log q_ij), natural logarithm, 0 log 0 = 0; gives [b].

    target: p, probabilities [b, c]. log_q: log-probabilities [b, c].
    """
    return F.kl_div(log_q, target, reduction="none").sum(dim=1)


def probabilities(logits: Tensor) -> Tensor:
    """Softmax [b, c] in float32 at least: under autocast the logits may be bfloat16."""
    return logits.softmax(dim=1, dtype=torch.promote_types(logits.dtype, torch.float32))


def log_probabilities(logits: Tensor) -> Tensor:
    """Logarithm of `probabilities`."""
    return logits.log_softmax(dim=1, dtype=torch.promote_types(logits.dtype, torch.float32))


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """-sum_j t_ij log f_j(x_i) of logits [b, c] and targets [b, c] (`Batch.targets`); gives [b]."""
    return -(targets * log_probabilities(logits)).sum(dim=1)


def mean_or_zero(values: Tensor) -> Tensor:
    """Mean of [m]; 0 when there are none, where torch's mean is NaN."""
    return values.sum() / max(len(values), 1)


def draw_mix(count: int, alpha: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """One lambda ~ Beta(alpha, alpha) for the batch, and a partner for each of `count` examples.

    lambda is drawn on the device, as a / (a + b) of two Gamma(alpha) variables: torch's own Beta
    copies its parameters from the host and checks them there. In float64, since with a small alpha
    both variables may be too small for float32.
    """
    concentration = torch.full((2,), alpha, dtype=torch.float64, device=device)
    gamma = torch.distributions.Gamma(
        concentration, torch.ones_like(concentration), validate_args=False
    )
    first, second = gamma.sample().unbind()
    return first / (first + second), torch.randperm(count, device=device)


def mix(x: Tensor, share: Tensor, partner: Tensor) -> Tensor:
    """lambda x_i + (1 - lambda) x_partner(i), along the first dimension."""
    return share * x + (1 - share) * x[partner]


def mixed_label_losses(
    student: Callable[[Tensor], Output], view: Tensor, targets: Tensor, alpha: float
) -> Tensor:
    """The cross entropy of mixed views [m, ...] with the mix of their targets [m, c]; gives [m]."""
    share, partner = draw_mix(len(view), alpha, view.device)
    logits = student(mix(view, share, partner)).logits
    return cross_entropy(logits, mix(targets, share, partner))
