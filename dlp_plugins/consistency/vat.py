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
from dlp_plugins.environment import seed_generators
from dlp_plugins.registry import consistency


@consistency.register("vat")
@dataclass
class VirtualAdversarial(Consistency):
    """The worst small step of the input keeps the prediction (Miyato et al., TPAMI 2018, alg. 1).

        L = supervised + weight (1/b) sum_i KL(p(x_i) || p(x_i + r_i)),  r_i = epsilon d_i
        d_i <- g_i / |g_i|,  g_i the gradient in r of KL(p(x_i) || p(x_i + r)) at r = xi d_i

    over all b views, labelled or not; the supervised term is a mean over the labelled ones. p(x_i)
    is without gradient; d starts as noise of length 1 and takes power_iterations steps towards the
    Hessian's first eigenvector. As in the authors' code, the passes on perturbed views use batch
    statistics without changing the running ones, and draw the same dropout as the pass on the clean
    view: with another mask the gradient would show the masks' difference, not the input's.

    Departure: xi is 0.01, not 1e-6, whose effect float32 rounds away. On digits the cosine between
    the direction found in float32 and that of float64 is 0.0 to 0.3 at 1e-6, 0.997 to 1.000 at
    0.01, and 0.95 to 0.98 at 0.1. For the same reason the search for d runs without autocast.
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
    labels_mean = "labeled"

    def losses(self, step: Step) -> dict[str, Tensor]:
        view = step.view
        # Seeding again costs no wait for the device, unlike saving and restoring its random state.
        seed = torch.initial_seed() + 1
        seed_generators(seed)
        clean = step.output.logits.detach()

        def predict(perturbation: Tensor | float) -> Tensor:
            seed_generators(seed)  # the dropout of the clean pass
            return step.student(view + perturbation).logits

        with _running_statistics_kept(step.student):
            r = self.epsilon * self._direction(predict, clean, view)
            consistency = self.weight * _divergence(clean, predict(r)).mean()
        return {**super().losses(step), "consistency": consistency}

    def _direction(
        self, predict: Callable[[Tensor | float], Tensor], clean: Tensor, view: Tensor
    ) -> Tensor:
        """Unit vectors of the view's shape in which the prediction changes most."""
        device = view.device.type
        rounded = torch.is_autocast_enabled(device)
        d = _unit(torch.randn_like(view))
        with torch.autocast(device, enabled=False):
            if rounded:  # the difference from a rounded prediction would be mostly rounding
                with torch.no_grad():
                    clean = predict(0.0)
            for _ in range(self.power_iterations):
                r = (self.xi * d).requires_grad_()
                (gradient,) = torch.autograd.grad(_divergence(clean, predict(r)).sum(), r)
                d = _unit(gradient)
        return d


def _divergence(clean: Tensor, perturbed: Tensor) -> Tensor:
    """KL(p(x_i) || p(x_i + r_i)) of logits [b, c]; gives [b]."""
    return kl_divergence(probabilities(clean), log_probabilities(perturbed))


def _unit(d: Tensor) -> Tensor:
    """Each image's vector at length 1; all zeros stay so."""
    # First by the largest entry: the squares of tiny gradients would underflow.
    tiny, of_each = torch.finfo(d.dtype).tiny, tuple(range(1, d.ndim))
    d = d / d.abs().amax(dim=of_each, keepdim=True).clamp_min(tiny)
    return d / d.square().sum(dim=of_each, keepdim=True).sqrt().clamp_min(tiny)


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
