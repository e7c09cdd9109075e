"""From files of embeddings and labels to a table of doubtful labels: what `dlp audit` does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlp_plugins.embeddings import table
from dlp_plugins.embeddings.audit import Audit, audit_labels
from dlp_plugins.embeddings.built import build_from_file
from dlp_plugins.embeddings.clock import Clock, Progress, silent
from dlp_plugins.embeddings.job import FilePropagation
from dlp_plugins.embeddings.labels import LabelFile
from dlp_plugins.embeddings.options import Options
from dlp_plugins.embeddings.run import prepare

ALONE = "the only label of its class"


@dataclass(frozen=True)
class FileAudit:
    """An audit from files, checked and ready to run."""

    job: FilePropagation
    out: Path

    def run(self, progress: Progress = silent) -> tuple[Audit, Clock]:
        """Audit the labels and write the table; also the seconds of each phase."""
        given = self.job.given
        built, clock = build_from_file(self.job, progress)
        with clock.phase("audit"):
            audit = audit_labels(
                self.job.propagator, built.f, built.graph, given.labels, len(given.classes),
                built.distinct, self.job.beliefs,
            )  # fmt: skip
        with clock.phase("write"):
            table.write_columns(self.out, table_columns(audit, given))
        return audit, clock


def prepare_audit(
    embeddings: Path | str, labels: Path | str, out: Path | str, **options: Any
) -> FileAudit:
    """Check everything that can be checked before the embeddings are read.

    Args:
        options: as `Options` takes them, `probabilities` excepted.

    Raises:
        As `run.prepare`.
    """
    return FileAudit(prepare(Options(embeddings, labels, out, **options)), Path(out))


def audit_file(
    embeddings: Path | str,
    labels: Path | str,
    out: Path | str,
    *,
    progress: Progress = silent,
    **options: Any,
) -> Audit:
    """Doubt the labels of a file by the embeddings of another and write the table.

    Raises:
        As `run.prepare`; MemoryBudgetError: the scores of all classes do not fit; SaveError: the
        table cannot be written.

    >>> from dlp_plugins.embeddings.audit_file import audit_file
    >>> audit = audit_file("x.npy", "y.csv", "doubts.csv")  # doctest: +SKIP
    """
    return prepare_audit(embeddings, labels, out, **options).run(progress)[0]


def table_columns(audit: Audit, given: LabelFile) -> dict[str, Any]:
    """Columns of the table by name, the most doubtful label first.

    `index` (from 0), `id` where points have ids, `label` and `suggested` as the label file names
    classes, `doubt` (0 to 1; empty where a label is the only one of its class, and `suggested`
    too), `against` (up to three rows, separated by blanks), where points have ids `against_ids`
    (theirs, separated by semicolons), `note`.
    """
    order = audit.order
    index = audit.points[order].tolist()
    alone = np.isnan(audit.doubt[order])

    def names(classes: np.ndarray) -> list[Any]:
        return [given.classes[j] if j >= 0 else None for j in classes[order].tolist()]

    evidence = [audit.evidence(i) for i in order.tolist()]
    columns: dict[str, Any] = {"index": index}
    if given.ids is not None:
        columns["id"] = [given.ids.values[i] for i in index]
    columns |= {
        "label": names(audit.labels),
        "suggested": names(audit.suggested),
        "doubt": audit.doubt[order].astype(np.float32),
        "against": [" ".join(map(str, rows)) for rows in evidence],
    }
    if given.ids is not None:
        ids = given.ids.values
        columns["against_ids"] = ["; ".join(str(ids[i]) for i in rows) for rows in evidence]
    return columns | {"note": [ALONE if only else "" for only in alone]}
