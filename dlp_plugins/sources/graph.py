"""Label propagation over the network's descriptors: the method of the paper."""

from __future__ import annotations

from dlp_plugins.propagation import PseudoLabels
from dlp_plugins.registry import sources
from dlp_plugins.sources.contract import Refresh, Source


@sources.register("graph")
class GraphSource(Source):
    """Labels spread over the graph of the student's descriptors (Iscen et al., section 4)."""

    def pseudo_labels(self, refresh: Refresh) -> PseudoLabels:
        r = refresh
        return r.propagator(r.describe(r.student), r.labels, r.num_classes, r.scores)
