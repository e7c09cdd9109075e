"""mixup: straight lines between images, and between their labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from dlp_plugins.consistency._terms import draw_mix, mix
from dlp_plugins.consistency.contract import Consistency, Step, weighted_cross_entropy
from dlp_plugins.registry import consistency


@consistency.register("mixup")
@dataclass
class Mixup(Consistency):
    """Labels and pseudo-labels are learnt from mixed images (Zhang et al., ICLR 2018, eq. 1).

        x~_i = lambda x_i + (1 - lambda) x_j,   lambda ~ Beta(alpha, alpha), j a random partner of i
        supervised = (1/b) sum_i [lambda w_i CE(f(x~_i), y_i) + (1 - lambda) w_j CE(f(x~_i), y_j)]

    w: the weight of a label or pseudo-label, as without mixup (Iscen et al., eq. 12); a partner
    without a label adds 0. As in the authors' code, one lambda serves the whole batch.
    """

    alpha: Annotated[
        float, Field(gt=0, description="of Beta(alpha, alpha); small values mix little")
    ] = 1.0

    def losses(self, step: Step) -> dict[str, Tensor]:
        batch = step.batch
        share, partner = draw_mix(len(batch), self.alpha, step.view.device)
        logits = step.student(mix(step.view, share, partner)).logits
        own = weighted_cross_entropy(logits, batch.labels, batch.weights)
        other = weighted_cross_entropy(logits, batch.labels[partner], batch.weights[partner])
        return {"supervised": share * own + (1 - share) * other}
