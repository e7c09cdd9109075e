"""Adam with decoupled weight decay."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from dlp_plugins.optimizers.contract import LearningRate, Params
from dlp_plugins.registry import optimizers

Beta = Annotated[float, Field(ge=0, lt=1, description="decay of a running average")]


@optimizers.register("adamw")
def adamw(
    params: Params,
    learning_rate: LearningRate = 1e-3,
    beta1: Beta = 0.9,
    beta2: Beta = 0.999,
    epsilon: Annotated[float, Field(gt=0, description="added to the denominator")] = 1e-8,
    weight_decay: Annotated[float, Field(ge=0, description="decoupled from the gradient")] = 1e-2,
) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter, ICLR 2019): usual for transformers and fine-tuning.

    A recipe that extends one written for `sgd` inherits its learning rate: set your own, near 1e-3
    from scratch and 1e-5 to 1e-4 for pretrained weights.
    """
    return torch.optim.AdamW(
        params,
        lr=learning_rate,
        betas=(beta1, beta2),
        eps=epsilon,
        weight_decay=weight_decay,
        fused=True,
    )
