"""What several consistency methods share: distances between predictions, mixing."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


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


def mean_or_zero(values: Tensor) -> Tensor:
    """Mean of [m]; 0 when there are none, where torch's mean is NaN."""
    return values.sum() / max(len(values), 1)


def draw_mix(count: int, alpha: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """One lambda ~ Beta(alpha, alpha) for the batch, and a partner for each of `count` examples."""
    concentration = torch.tensor(alpha, device=device)
    share = torch.distributions.Beta(concentration, concentration).sample()
    return share, torch.randperm(count, device=device)


def mix(x: Tensor, share: Tensor, partner: Tensor) -> Tensor:
    """lambda x_i + (1 - lambda) x_partner(i), along the first dimension."""
    return share * x + (1 - share) * x[partner]
