"""Mean Teacher, with the settings of Iscen et al. (Label Propagation for Deep SSL, CVPR 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import Field
from torch import Tensor

from dlp_plugins.consistency._teacher import WithTeacher
from dlp_plugins.consistency._terms import (
    kl_divergence,
    log_probabilities,
    probabilities,
    squared_error,
)
from dlp_plugins.consistency.contract import Step
from dlp_plugins.registry import consistency
from dlp_plugins.schedules._ramp_up import ramp_up


@consistency.register("mean_teacher")
@dataclass
class MeanTeacher(WithTeacher):
    """The student agrees with the average of its own past (Tarvainen and Valpola, NeurIPS 2017).

    Over all b images, labelled or not, each augmented once for each of the two networks:

        L = supervised + weight r(epoch) (1/b) sum_i d(softmax h(x_i), softmax f'(x'_i))
            + logit_distance (1/(b c)) sum_ij (f_j(x_i) - h_j(x_i))^2

    f: the student's class head, h: its consistency head (the class head when heads = 1), f': the
    teacher's class head. d is (1/c) sum_j (p_j - q_j)^2, or KL(teacher || student). r is the
    sigmoid ramp-up. The supervised term is a mean over all b images too.

    As in the authors' PyTorch code, whose weights these are, the teacher stays in training mode
    (its dropout is on, its batch norm gathers its own statistics), and its second head is averaged
    but not used. Departures: the ramp-up moves with each step, not each epoch, and the teacher
    starts as a copy of the student.
    """

    weight: Annotated[float, Field(ge=0, description="of the consistency after the ramp-up")] = (
        100.0
    )
    ramp_up_epochs: Annotated[float, Field(ge=0, description="epochs of sigmoid ramp-up")] = 5.0
    ema_decay: Annotated[
        float, Field(ge=0, lt=1, description="share that the teacher keeps at each step, at most")
    ] = 0.97
    distance: Annotated[
        Literal["mse", "kl"], Field(description="between the two networks' class probabilities")
    ] = "mse"
    heads: Annotated[
        int, Field(ge=1, le=2, description="2: the consistency has a linear layer of its own")
    ] = 2
    logit_distance: Annotated[
        float, Field(ge=0, description="weight of the two heads' squared difference")
    ] = 0.01

    needs_unlabeled = True

    def losses(self, step: Step) -> dict[str, Tensor]:
        with torch.no_grad():
            teacher = self.teacher(step.weak(step.batch.images)).logits
        student, weight = step.output, self.weight * ramp_up(step.epoch, self.ramp_up_epochs)
        terms = super().losses(step)
        terms["consistency"] = weight * self._distance(student.consistency_logits, teacher).mean()
        if self.heads == 2:
            difference = F.mse_loss(student.logits.float(), student.consistency_logits.float())
            terms["logit_distance"] = self.logit_distance * difference
        return terms

    def _distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        if self.distance == "kl":
            return kl_divergence(probabilities(teacher), log_probabilities(student))
        return squared_error(probabilities(student), probabilities(teacher))
