"""Whether a point may belong to no known class: labels reach it less than a uniform source does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dlp_plugins.errors import UsageError

if TYPE_CHECKING:
    from dlp_plugins.propagation.propagator import Propagator


def total_reach(scores: Tensor) -> Tensor:
    """[n]: what of the labels of some classes arrives at each point, from Z [n, w]."""
    return scores.clamp(min=0).sum(dim=1)


def check_system(propagator: Propagator, what: str) -> None:
    """Refuse a solver of another system, as Poisson learning is.

    Raises:
        UsageError: it has no alpha.
    """
    if not hasattr(propagator.solver, "alpha"):
        name = type(propagator.solver).__name__
        raise UsageError(f"{what} a solver of (I - alpha Wn) Z = Y, such as cg; found {name}.")


def background_reach(propagator: Propagator, state: Any, n: int, device: torch.device) -> Tensor:
    """[n]: what arrives of a source that is the same at every point and 1 in all.

    Args:
        state: what the solver's `prepare` returned.

    Raises:
        UsageError: the solver is of another system (as Poisson learning is).
    """
    check_system(propagator, "Unknown scores need")
    source = torch.full((n, 1), 1 / n, device=device)
    return propagator.solve(state, source).scores[:, 0].clamp(min=0)


def unknown_scores(reach: Tensor, background: Tensor, sources: float) -> Tensor:
    """[n] float32 in 0..1: u_i = b_i / (b_i + r_i / s).

    r is the reach of all classes, whose sources are s in all (see `Beliefs.total`), and b that of
    the uniform source: where labels say no more than the number of neighbours does, u is 0.5; where
    none arrives it is 1.
    """
    total = background + reach / sources
    return torch.where(total > 0, background / total, 1.0)
