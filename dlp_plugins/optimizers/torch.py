"""Every optimizer of `torch.optim` by name: `optimizer = { name = "torch:NAdam" }`."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from dlp_plugins.errors import UsageError
from dlp_plugins.optimizers.contract import LearningRate, Params
from dlp_plugins.registry import optimizers

# These ask for a closure or sparse gradients, which the training loop does not give.
UNFIT = ("LBFGS", "SparseAdam")


@optimizers.register("torch", family=True)
def build(
    member: str,
    params: Params,
    learning_rate: LearningRate = 1e-3,
    arguments: Annotated[
        dict[str, bool | int | float | list[float]],
        Field(description="its other arguments, by torch's names"),
    ] = {},  # noqa: B006 - read only
) -> torch.optim.Optimizer:
    """Any optimizer of `torch.optim`, with torch's own argument names.

    Raises:
        UsageError: it takes no such argument or value, or not these parameters (Muon takes matrices
            alone).
    """
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()}
    try:
        return getattr(torch.optim, member)(params, lr=learning_rate, **given)
    except (TypeError, ValueError) as error:
        raise UsageError(f"optimizer torch:{member}: {error}") from None


def members() -> list[str]:
    """Names of the optimizers that the training loop can drive."""
    return sorted(
        name
        for name, value in vars(torch.optim).items()
        if isinstance(value, type)
        and issubclass(value, torch.optim.Optimizer)
        and value is not torch.optim.Optimizer
        and name not in UNFIT
    )


build.members = members  # type: ignore[attr-defined]
