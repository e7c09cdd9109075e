"""The network's own predictions: the baseline of the paper."""

from __future__ import annotations

from dlp_plugins.propagation import PseudoLabels
from dlp_plugins.registry import sources
from dlp_plugins.sources.contract import Refresh, Source


@sources.register("network")
class NetworkSource(Source):
    """The student's own predictions, weighted and balanced alike: 'Network prediction'."""

    def pseudo_labels(self, refresh: Refresh) -> PseudoLabels:
        return refresh.propagator.to_pseudo_labels(refresh.predict(refresh.student), refresh.labels)
