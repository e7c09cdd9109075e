"""Label propagation over the teacher's descriptors."""

from __future__ import annotations

from dlp_plugins.errors import UsageError
from dlp_plugins.propagation import PseudoLabels
from dlp_plugins.registry import sources
from dlp_plugins.sources.contract import Refresh, Source


@sources.register("teacher")
class TeacherSource(Source):
    """Labels spread over the graph of the averaged network's descriptors.

    Not in the paper, which describes images by the student.

    Raises:
        UsageError: the consistency method keeps no teacher.
    """

    needs_teacher = True

    def pseudo_labels(self, refresh: Refresh) -> PseudoLabels:
        r = refresh
        if r.teacher is None:
            raise UsageError(
                "source teacher: the consistency method keeps no teacher. Set consistency to "
                "mean_teacher, or source to graph."
            )
        return r.propagator(r.describe(r.teacher), r.labels, r.num_classes, r.scores)
