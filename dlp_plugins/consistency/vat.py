"""Virtual adversarial training: the prediction holds in the direction in which it changes most."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dlp_plugins.consistency._terms import kl_divergence, log_probabilities, probabilities
from dlp_plugins.consistency.contract import Consistency, Step
from dlp_plugins.registry import consistency


@consistency.register("vat")
@dataclass
class VirtualAdversarial(Consistency):
    """No small step of the input changes the prediction (Miyato et al., TPAMI 2018, eq. 5 to 8, algorithm 1).

        L = supervised + weight (1/b) sum_i KL(p(x_i) || p(x_i + r_i))
        r_i = epsilon d_i / |d_i|,  d_i <- grad of KL(p(x_i) || p(x_i + xi d_i / |d_i|)) in its perturbation

    over all b views; p(x_i) without gradient; d starts as noise and takes power_iterations steps to the
    Hessian's first eigenvector. As in the authors' code, the passes on perturbed views use batch
    statistics without changing the running ones, and draw the same dropout as the pass on the clean view:
    with another mask the gradient would show the mask's difference, not the input's.

    Departure: xi is 1e-2, not 1e-6, whose effect float32 rounds away; for the same reason the
    search for d runs without autocast.
    """

    weight: Annotated[float, Field(ge=0, description="of the consistency")] = 1.0
    epsilon: Annotated[
        float, Field(gt=0, description="length of the perturbation of a normalised image (L2)")
    ] = 8.0
    xi: Annotated[float, Field(gt=0, description="length of the step that finds its direction")] = (
        1e-2
    )
    power_iterations: Annotated[int, Field(ge=1, description="steps of the power method")] = 1

    needs_unlabeled = True

    def losses(self, step: Step) -> dict[str, Tensor]:
        view = step.view
        random_state = _random_state(view.device)
        target = probabilities(step.output.logits.detach())

        def divergence(perturbation: Tensor) -> Tensor:
            _restore(random_state, view.device)
            logits = step.student(view + perturbation).logits
            return kl_divergence(target, log_probabilities(logits))

        with _running_statistics_kept(step.student):
            r = self.epsilon * self._direction(divergence, view)
            consistency = self.weight * divergence(r).mean()
        return {**super().losses(step), "consistency": consistency}

    def _direction(self, divergence: Callable[[Tensor], Tensor], view: Tensor) -> Tensor:
        """Unit vectors [b, channels, height, width] in which the prediction changes most."""
        d = _unit(torch.randn_like(view))
        for _ in range(self.power_iterations):
            d = (self.xi * d).requires_grad_()
            with torch.autocast(view.device.type, enabled=False):
                (gradient,) = torch.autograd.grad(divergence(d).sum(), d)
            d = _unit(gradient)
        return d


def _unit(d: Tensor) -> Tensor:
    """Each image's vector at length 1; all zeros stay so."""
    # First by the largest entry: the squares of tiny gradients would underflow.
    tiny = torch.finfo(d.dtype).tiny
    d = d / d.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(tiny)
    return d / d.square().sum(dim=(1, 2, 3), keepdim=True).sqrt().clamp_min(tiny)


@contextlib.contextmanager
def _running_statistics_kept(network: nn.Module) -> Iterator[None]:
    """Batch norm still normalises by the batch, but its running statistics stay as they are."""
    tracking = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    for module in tracking:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in tracking:
            module.track_running_stats = True


def _random_state(device: torch.device) -> Tensor:
    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    return torch.get_rng_state()


def _restore(state: Tensor, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
