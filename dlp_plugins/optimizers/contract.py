"""What an optimizer component is: parameter groups in, a `torch.optim.Optimizer` out.

Registered is a class or function whose context argument `params` is the list of parameter groups;
every other argument may be set by a recipe. It must have an argument `learning_rate`: the rate of a
group is this, times the group's factor, times the schedule's (`training/parameters.py`).

State must be tensors alone, one dictionary for each parameter, as in `torch.optim`: that is what a
checkpoint keeps. `dlp_plugins.testing.check_optimizer` checks all of this.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

LearningRate = Annotated[float, Field(gt=0, description="base learning rate, before the schedule")]
WeightDecay = Annotated[float, Field(ge=0, description="L2 penalty's factor")]
Params = list[dict[str, Any]]
"""Parameter groups: "params", and "weight_decay" where a group has its own."""
