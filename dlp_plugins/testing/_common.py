"""Helpers of all checks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dlp_plugins.registry import Registry


def require(condition: object, sentence: str) -> None:
    """Raise AssertionError with that sentence unless the condition holds, `python -O` or not."""
    if not condition:
        raise AssertionError(sentence)


def built(registry: Registry, component: Any, parameters: dict[str, Any]) -> Any:
    """The component itself, or the one of that name with those parameters."""
    if isinstance(component, str):
        return registry.build(component, **parameters)
    require(
        not parameters, "parameters belong to a name; a component that is built has its own already"
    )
    require(
        isinstance(component, registry.base),
        f"{type(component).__name__} must be a {registry.base.__module__}.{registry.base.__name__}",
    )
    return component


def require_tensor(
    x: object, shape: tuple[int, ...], what: str, dtype: torch.dtype | None = torch.float32
) -> Tensor:
    """A finite tensor of that shape and type, or AssertionError."""
    if not isinstance(x, Tensor):
        raise AssertionError(f"{what} must be a tensor; it is a {type(x).__name__}")
    require(tuple(x.shape) == shape, f"{what} must be {list(shape)}; it is {list(x.shape)}")
    require(dtype is None or x.dtype == dtype, f"{what} must be {dtype}; it is {x.dtype}")
    require(torch.isfinite(x).all(), f"{what} must be finite; it holds NaN or infinity")
    return x
