"""Interpolation consistency training: a mixed image gets the mixed prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from dlp_plugins.consistency._teacher import WithTeacher
from dlp_plugins.consistency._terms import (
    draw_mix,
    mean_or_zero,
    mix,
    mixed_label_losses,
    probabilities,
    squared_error,
)
from dlp_plugins.consistency.contract import Step
from dlp_plugins.registry import consistency
from dlp_plugins.schedules._ramp_up import ramp_up


@consistency.register("ict")
@dataclass
class InterpolationConsistency(WithTeacher):
    """A mixed unlabelled image gets the teacher's mixed prediction (Verma et al., IJCAI 2019).

        L = supervised + weight r(epoch) (1/u) sum_i d(p(mix(x_i, x_j)), mix(p'(x_i), p'(x_j)))

    over the u unlabelled images of the batch, j a random partner of i; mix(a, b) = lambda a +
    (1 - lambda) b, lambda ~ Beta(alpha, alpha), one for the batch; p the student's softmax, p' the
    teacher's; d(p, q) = (1/c) sum_j (p_j - q_j)^2; r the sigmoid ramp-up. The supervised term is a
    mean over the labelled images. With mix_labeled, as in the authors' published commands, they are
    mixed too, with a lambda of their own: the term is that of `mixup`.

    The teacher stays in training mode, as in the authors' code. Departures: their code mixes the
    teacher's logits, their equation 2 its predictions, as here; their networks also see each image
    unmixed, which changes nothing but batch-norm statistics.
    """

    weight: Annotated[float, Field(ge=0, description="of the consistency after the ramp-up")] = (
        100.0
    )
    ramp_up_epochs: Annotated[float, Field(ge=0, description="epochs of sigmoid ramp-up")] = 100.0
    alpha: Annotated[
        float, Field(gt=0, description="of Beta(alpha, alpha); small values mix little")
    ] = 1.0
    mix_labeled: Annotated[bool, Field(description="mix the labelled images and labels too")] = True
    ema_decay: Annotated[
        float, Field(ge=0, lt=1, description="share that the teacher keeps at each step, at most")
    ] = 0.999

    needs_unlabeled = True
    labels_mean = "labeled"
    terms_mean = "unlabeled"

    def losses(self, step: Step) -> dict[str, Tensor]:
        terms = self._supervised(step) if self.mix_labeled else super().losses(step)
        view = step.view[step.batch.num_labeled :]
        error = view.new_zeros(0)  # without unlabelled images
        if len(view):  # not every backbone takes an empty batch
            share, partner = draw_mix(len(view), self.alpha, view.device)
            with torch.no_grad():
                target = mix(probabilities(self.teacher(view).logits), share, partner)
            predicted = probabilities(step.student(mix(view, share, partner)).logits)
            error = squared_error(predicted, target)
        weight = self.weight * ramp_up(step.epoch, self.ramp_up_epochs)
        terms["consistency"] = weight * mean_or_zero(error)
        return terms

    def _supervised(self, step: Step) -> dict[str, Tensor]:
        known = step.batch.num_known
        if known == 0:
            return {"supervised": step.view.new_zeros(())}
        losses = mixed_label_losses(
            step.student, step.view[:known], step.batch.targets[:known], self.alpha
        )
        return {"supervised": losses.mean()}
