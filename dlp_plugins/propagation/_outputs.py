"""What a component returns is checked, and cast to float32, where it enters a propagation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dlp_plugins.errors import ComponentError
from dlp_plugins.graph import Neighbors
from dlp_plugins.solvers.contract import Solution


def checked(
    x: Any,
    component: object,
    what: str,
    shape: tuple[int, ...],
    low: float = -torch.inf,
    high: float = torch.inf,
) -> Tensor:
    """x as float32.

    Raises:
        ComponentError: no floating-point tensor of that shape, NaN, or a value that is not in
            low..high; infinity is never allowed.
    """
    _require(isinstance(x, Tensor), component, f"{what} must be a tensor; found {type(x).__name__}")
    _require(x.shape == shape, component, f"{what} must be {list(shape)}; found {list(x.shape)}")
    _require(x.is_floating_point(), component, f"{what} must be float32; found {x.dtype}")
    x = x.detach().float()
    if x.numel():
        least, largest = map(float, torch.aminmax(x))
        finite = least > -torch.inf and largest < torch.inf  # NaN is neither
        _require(finite, component, f"{what} must be finite; found NaN or infinity")
        inside = low <= least and largest <= high
        _require(
            inside, component, f"{what} must be {_range(low, high)}; found {least:g}..{largest:g}"
        )
    return x


def checked_neighbors(found: Any, component: object, n: int) -> Neighbors:
    """Neighbour lists of n points, similarities as float32; ComponentError for anything else."""
    _require(isinstance(found, Neighbors), component, "it must return Neighbors")
    indices = found.indices
    is_tensor = isinstance(indices, Tensor)
    _require(is_tensor, component, f"indices must be a tensor; found {type(indices).__name__}")
    fits = indices.ndim == 2 and len(indices) == n and not indices.is_floating_point()
    _require(
        fits,
        component,
        f"indices must be [{n}, k] integers; found {list(indices.shape)} {indices.dtype}",
    )
    if indices.numel():
        least, largest = map(int, torch.aminmax(indices))
        inside = least >= -1 and largest < n
        _require(inside, component, f"indices must be -1..{n - 1}; found {least}..{largest}")
    similarities = found.similarities
    missing = indices < 0
    if isinstance(similarities, Tensor) and similarities.shape == missing.shape and missing.any():
        similarities = similarities.masked_fill(missing, 0)  # may be -infinity there
    similarities = checked(similarities, component, "similarities", tuple(indices.shape))
    if (order := found.order) is not None:
        ascending = order.long().sort().values.cpu()
        once = torch.equal(ascending, torch.arange(n))
        _require(once, component, f"order must list each of the {n} points once")
    return replace(found, similarities=similarities)


def checked_solution(found: Any, component: object, shape: tuple[int, ...]) -> Solution:
    """A solution of [n, c] scores, as float32; ComponentError for anything else."""
    _require(isinstance(found, Solution), component, "it must return a Solution")
    return replace(
        found,
        scores=checked(found.scores, component, "scores", shape),
        residual=checked(found.residual, component, "residuals", shape[1:], low=0),
        converged=bool(found.converged),
        limited_by_precision=bool(found.limited_by_precision),
    )


def _require(condition: Any, component: object, sentence: str) -> None:
    if not condition:
        raise ComponentError(f"{type(component).__name__}: {sentence}.")


def _range(low: float, high: float) -> str:
    return f"at least {low:g}" if high == torch.inf else f"within {low:g}..{high:g}"
