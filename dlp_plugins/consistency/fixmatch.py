"""FixMatch: what the network is sure of on a weak view, it must say of a strong one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch.nn.functional as F  # noqa: N812
from pydantic import Field
from torch import Tensor

from dlp_plugins.consistency._teacher import WithTeacher
from dlp_plugins.consistency._terms import mean_or_zero, probabilities
from dlp_plugins.consistency.contract import Step
from dlp_plugins.registry import consistency


@consistency.register("fixmatch")
@dataclass
class FixMatch(WithTeacher):
    """Confident predictions on weak views label strong views (Sohn et al., NeurIPS 2020, eq. 4).

        L = supervised + weight (1/u) sum_i [max_j q_ij >= threshold] CE(f(A(x_i)), argmax_j q_ij)

    over the u unlabelled images of the batch; q_i = softmax f(a(x_i)) of the weak view, without
    gradient; A the strong augmentation; the supervised term is a mean over the labelled images. The
    authors measure an average of the student's parameters, beside which batch norm keeps the
    student's own statistics: here it is the teacher, which takes no part in the loss. Departures:
    weak and strong views pass through the network one after the other, so each has its own batch
    statistics; the average has Mean Teacher's warm-up.

    Set backbone.normalize_descriptor = false: a descriptor of length 1 bounds the logits, and on
    digits no prediction reached the threshold in 400 steps (without it three quarters did).
    """

    weight: Annotated[float, Field(ge=0, description="of the unlabelled images' loss")] = 1.0
    threshold: Annotated[
        float, Field(ge=0, le=1, description="least probability that makes a prediction a label")
    ] = 0.95
    ema_decay: Annotated[
        float, Field(ge=0, lt=1, description="share that the measured average keeps at each step")
    ] = 0.999

    needs_unlabeled = True
    labels_mean = "labeled"
    terms_mean = "unlabeled"
    copies_statistics = True

    def losses(self, step: Step) -> dict[str, Tensor]:
        first = step.batch.num_labeled
        images = step.batch.images[first:]
        confidence, label = probabilities(step.output.logits.detach()[first:]).max(dim=1)
        # Not every backbone takes an empty batch.
        strong = step.student(step.strong(images)).logits if len(images) else step.output.logits[:0]
        error = F.cross_entropy(strong.float(), label, reduction="none")
        error = error * (confidence >= self.threshold)
        return {**super().losses(step), "consistency": self.weight * mean_or_zero(error)}
