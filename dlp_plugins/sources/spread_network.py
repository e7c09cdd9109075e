"""The network's own predictions spread over the graph, together with the labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from dlp_plugins.inputs import UNLABELED
from dlp_plugins.propagation import PseudoLabels
from dlp_plugins.propagation.beliefs import Beliefs, Prior
from dlp_plugins.registry import sources
from dlp_plugins.sources.contract import Refresh, Source


@sources.register("spread_network")
@dataclass(frozen=True)
class SpreadNetworkSource(Source):
    """Z = (I - alpha Wn)^(-1) Y with Y = Y_labels + beta P / (column sums of P).

    P holds the network's class probabilities of unlabelled images. Not in the paper, where labels
    alone are spread. With many more predictions than labels a smaller alpha, 0.8, fits.
    """

    prior_weight: Annotated[
        float, Field(gt=0, description="beta: total of a class's predictions over its labels'")
    ] = 100.0

    def pseudo_labels(self, refresh: Refresh) -> PseudoLabels:
        r = refresh
        predictions = r.predict(r.student).masked_fill((r.labels != UNLABELED)[:, None], 0.0)
        prior = Prior(predictions.cpu().numpy(), self.prior_weight)
        return r.propagator(
            r.describe(r.student), r.labels, r.num_classes, r.scores, Beliefs(prior=prior)
        )
