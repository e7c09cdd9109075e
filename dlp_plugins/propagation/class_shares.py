"""Class sizes: the share pi of each class among the unlabelled points.

One setting of a propagation, for whatever takes class sizes: the normalizers `class_mass` and
`sinkhorn`, the discriminant's balance, and the solvers `poisson_mbo` and `cut`.

Shapes: n points, c classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from dlp_plugins.errors import ParameterError
from dlp_plugins.inputs import UNLABELED

EQUAL, LABELS, ESTIMATE = "equal", "labels", "estimate"
RULES = (EQUAL, LABELS, ESTIMATE)
ClassShares = str | tuple[float, ...]
"""'equal'; 'labels', as frequent as among the labels; 'estimate'; or a number > 0 per class."""

MAX_STEPS = 50
TOLERANCE = 1e-4  # largest change of a share at which to stop


def to_class_shares(given: Any) -> ClassShares:
    """A rule as it is; numbers (shares or counts) as a tuple of shares that sum to 1.

    Raises:
        ParameterError: an unknown rule, not a vector of numbers, or one that is not above 0.
    """
    if isinstance(given, str):
        if given not in RULES:
            raise ParameterError(
                f"class_shares: found {given!r}; allowed: {', '.join(RULES)}, or a number for each "
                "class."
            )
        return given
    try:
        numbers = [float(x) for x in given]
    except (TypeError, ValueError):
        raise ParameterError(
            f"class_shares: a number for each class is needed; found {given!r}."
        ) from None
    for j, x in enumerate(numbers):
        if not 0 < x < float("inf"):
            raise ParameterError(
                f"class_shares: the share of class {j} is {x:g}; it must be above 0. Leave a class "
                "without points out of the labels instead."
            )
    total = sum(numbers)
    return tuple(x / total for x in numbers)


def equal_shares(num_classes: int, device: torch.device | str = "cpu") -> Tensor:
    """pi [c]: the same share of the unlabelled points for every class."""
    return torch.full((num_classes,), 1 / num_classes, device=device)


def known_shares(class_shares: ClassShares, labels: Tensor, num_classes: int) -> Tensor | None:
    """pi [c] float32 on the labels' device; None where it is to be estimated.

    Args:
        labels: [n], -1 where there is none.

    Raises:
        ParameterError: as many numbers as there are classes are needed.
    """
    if class_shares == ESTIMATE:
        return None
    if class_shares == EQUAL:
        return equal_shares(num_classes, labels.device)
    if class_shares == LABELS:
        given = labels[labels != UNLABELED].long()
        return torch.bincount(given, minlength=num_classes).float() / max(1, len(given))
    assert isinstance(class_shares, Sequence)
    if len(class_shares) != num_classes:
        raise ParameterError(
            f"class_shares: {len(class_shares)} numbers for {num_classes} classes; one for each is "
            "needed."
        )
    return torch.tensor(class_shares, dtype=torch.float32, device=labels.device)


def estimate_shares(blocks: Callable[[], Iterable[Tensor]]) -> Tensor:
    """pi [c] float32 by expectation maximisation, from the labels that equal shares give.

    pi_j = mean over i of pi_j g_ij / sum_k pi_k g_ik, from equal shares (Saerens, Latinne and
    Decaestecker, 2002), g the fourth powers of the probabilities under equal shares: the graph's
    own are too flat for this, and would leave small classes nothing. A class with any probability
    keeps the share of one point. Rows of zeros do not count.

    Args:
        blocks: starts a pass over the probabilities [b, c] of all unlabelled points, found with
            equal shares.
    """
    pi: Tensor | None = None
    for _ in range(MAX_STEPS):
        mass, count = None, 0
        for p in blocks():
            r = p.double().square().square()
            if pi is not None:
                r *= pi
            row = r.sum(dim=1, keepdim=True)
            r = torch.where(row > 0, r / row, 0.0)
            part = r.sum(dim=0)
            mass, count = part if mass is None else mass + part, count + int((row > 0).sum())
        if mass is None or count == 0:
            raise ParameterError(
                "class_shares: 'estimate' needs unlabelled points that labels reach; there are "
                "none."
            )
        new = torch.where(mass > 0, (mass / count).clamp(min=1 / count), 0.0)
        new /= new.sum()
        moved = torch.inf if pi is None else float((new - pi).abs().max())
        pi = new
        if moved < TOLERANCE:
            break
    assert pi is not None
    return pi.float()
