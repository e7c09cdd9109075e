"""The graph's labels where the network predicts the same class; the others do not count."""

from __future__ import annotations

from dataclasses import replace

import torch

from dlp_plugins.inputs import UNLABELED
from dlp_plugins.propagation import PseudoLabels
from dlp_plugins.registry import sources
from dlp_plugins.sources.contract import Refresh, Source


@sources.register("agreement")
class AgreementSource(Source):
    """The labels of `graph`, with certainty 0 where the student's own prediction is another.

    Classes are balanced by the images that count. Not in the paper, which trains on all of the
    graph's labels.
    """

    def pseudo_labels(self, refresh: Refresh) -> PseudoLabels:
        r = refresh
        found = r.propagator(r.describe(r.student), r.labels, r.num_classes, r.scores)
        agree = (found.labels == r.predict(r.student).argmax(dim=1)) | (r.labels != UNLABELED)
        counted = found.labels[agree & (found.labels != UNLABELED)]
        counts = torch.bincount(counted, minlength=r.num_classes)
        return replace(
            found,
            certainty=torch.where(agree, found.certainty, 0.0),
            class_weights=r.propagator.class_weights(counts),
        )
