"""The Pi-model: two views of an image, one prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from dlp_plugins.consistency._terms import probabilities, squared_error
from dlp_plugins.consistency.contract import Consistency, Step
from dlp_plugins.registry import consistency
from dlp_plugins.schedules._ramp_up import ramp_up


@consistency.register("pi_model")
@dataclass
class PiModel(Consistency):
    """Two augmentations and two dropout masks must agree (Laine and Aila, ICLR 2017, algorithm 1).

        L = supervised + weight (l/b) r(epoch) (1/(b c)) sum_ij (z_ij - z'_ij)^2

    z, z' [b, c]: the student's softmax on two views of all b images; both carry gradient, as in the
    authors' code. r is the sigmoid ramp-up. The supervised term is a mean over the batch, l of it
    labelled (in stage two all b); the authors' factor is the labelled share M/N of the training
    set, which is also that of their batches.
    """

    weight: Annotated[
        float,
        Field(ge=0, description="of the consistency after the ramp-up, times the labelled share"),
    ] = 100.0
    ramp_up_epochs: Annotated[float, Field(ge=0, description="epochs of sigmoid ramp-up")] = 80.0

    needs_unlabeled = True

    def losses(self, step: Step) -> dict[str, Tensor]:
        first = probabilities(step.output.logits)
        second = probabilities(step.student(step.weak(step.batch.images)).logits)
        weight = self.weight * step.batch.share_known * ramp_up(step.epoch, self.ramp_up_epochs)
        return {**super().losses(step), "consistency": weight * squared_error(first, second).mean()}
