"""check_optimizer and check_schedule."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from dlp_plugins.registry import optimizers, schedules
from dlp_plugins.schedules.contract import Schedule
from dlp_plugins.testing._common import built, require

RATE, STEPS = 0.01, 6
EPOCHS, WARMUP = 20, 4.0


def check_optimizer(
    optimizer: str | Callable[..., torch.optim.Optimizer], **parameters: Any
) -> None:
    """Check an optimizer: its learning rate is obeyed, it descends, and its state can be saved.

    Args:
        optimizer: a registered name; or the class or function itself, since one that is built holds
            its parameters already.

    Raises:
        AssertionError: the sentence says what is wrong.
    """
    parameters = {"learning_rate": RATE, **parameters}
    rate, where = parameters["learning_rate"], getattr(optimizer, "__name__", str(optimizer))

    def build(layer: nn.Linear) -> torch.optim.Optimizer:
        groups = [
            {"params": [layer.weight], "rate": 1.0},
            {"params": [layer.bias], "rate": 0.5, "weight_decay": 0.0},
        ]
        if isinstance(optimizer, str):
            return optimizers.build(optimizer, params=groups, **parameters)
        return optimizer(params=groups, **parameters)

    layer = _layer()
    made = build(layer)
    require(isinstance(made, torch.optim.Optimizer), f"{where}: it must be a torch.optim.Optimizer")
    require(
        [g.get("rate") for g in made.param_groups] == [1.0, 0.5],
        f"{where}: it must keep the parameter groups with all their keys",
    )
    require(
        all(g["lr"] == rate for g in made.param_groups),
        f"{where}: param_groups must have the learning rate under 'lr'",
    )
    losses = [_step(layer, made) for _ in range(STEPS)]
    require(losses[-1] < losses[0], f"{where}: {STEPS} steps at rate {rate} do not descend")
    _check_state(build, layer, made, where)
    for group in made.param_groups:
        group["lr"] = 0.0
    before = layer.weight.detach().clone()
    _step(layer, made)
    require(torch.equal(layer.weight, before), f"{where}: at learning rate 0 parameters move")


def _check_state(
    build: Callable[[nn.Linear], torch.optim.Optimizer],
    layer: nn.Linear,
    made: torch.optim.Optimizer,
    where: str,
) -> None:
    """As a checkpoint does: only tensors are kept, and a fresh optimizer goes on from them."""
    slots = made.state_dict()["state"]
    for slot in slots.values():
        plain = [k for k, v in slot.items() if not (v is None or torch.is_tensor(v))]
        require(not plain, f"{where}: state must hold tensors only; not one: {', '.join(plain)}")
    kept = {i: {k: v.clone() for k, v in s.items() if v is not None} for i, s in slots.items()}
    other = _layer()
    other.load_state_dict(layer.state_dict())
    resumed = build(other)
    resumed.load_state_dict({**resumed.state_dict(), "state": kept})
    for _ in range(2):
        _step(layer, made)
        _step(other, resumed)
    require(
        torch.equal(layer.weight, other.weight) and torch.equal(layer.bias, other.bias),
        f"{where}: after its state was saved and loaded it takes other steps",
    )


def _layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 2)


def _step(layer: nn.Linear, optimizer: torch.optim.Optimizer) -> float:
    random = torch.Generator().manual_seed(1)
    x, y = torch.randn(32, 4, generator=random), torch.randn(32, 2, generator=random)
    loss = (layer(x) - y).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def check_schedule(schedule: str | Schedule, **parameters: Any) -> None:
    """Check a schedule: finite factors from 0 that depend on the place alone, linear warm-up.

    Raises:
        AssertionError: the sentence says what is wrong.
    """
    made: Schedule = built(schedules, schedule, parameters)
    where = type(made).__name__
    for epochs in (1, EPOCHS):
        places = [epochs * i / 50 for i in range(51)]
        factors = [made(epoch, epochs) for epoch in places]
        for epoch, factor in zip(places, factors, strict=True):
            require(
                math.isfinite(factor) and factor >= 0,
                f"{where}: the factor must be finite and 0 or more; at epoch {epoch:g} of {epochs} "
                f"it is {factor}",
            )
        # a resumed run asks for the places that are left, once more
        again = [made(epoch, epochs) for epoch in reversed(places)][::-1]
        require(again == factors, f"{where}: the factor must depend on the place alone")
    plain, warmed = (replace(made, warmup_epochs=w) for w in (0.0, WARMUP))
    for share in (0.0, 0.25, 1.0):
        epoch = share * WARMUP
        require(
            math.isclose(warmed(epoch, EPOCHS), share * plain(epoch, EPOCHS), abs_tol=1e-12),
            f"{where}: at {share:g} of the warm-up the factor must be {share:g} times what it is "
            "without one",
        )
