"""mixup: straight lines between images, and between their labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from dlp_plugins.consistency._terms import mixed_label_losses
from dlp_plugins.consistency.contract import Consistency, Step
from dlp_plugins.registry import consistency


@consistency.register("mixup")
@dataclass
class Mixup(Consistency):
    """Labels and pseudo-labels are learnt from mixed images (Zhang et al., ICLR 2018, eq. 1).

        x~_i = lambda x_i + (1 - lambda) x_j,   lambda ~ Beta(alpha, alpha), j a random partner of i
        supervised = (1/b) sum_i [lambda w_i CE(f(x~_i), y_i) + (1 - lambda) w_j CE(f(x~_i), y_j)]

    w: the weight of a label or pseudo-label, as without mixup (Iscen et al., eq. 12); a partner
    without a label adds 0. Soft pseudo-labels are mixed in the same way. As in the authors' code,
    one lambda serves the whole batch.
    """

    alpha: Annotated[
        float, Field(gt=0, description="of Beta(alpha, alpha); small values mix little")
    ] = 1.0

    def losses(self, step: Step) -> dict[str, Tensor]:
        losses = mixed_label_losses(step.student, step.view, step.batch.targets, self.alpha)
        return {"supervised": losses.mean()}
