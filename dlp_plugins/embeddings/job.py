"""A propagation from files, checked and ready to run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlp_plugins.embeddings import table
from dlp_plugins.embeddings.chunked import Outcome, Store, propagate_chunked
from dlp_plugins.embeddings.clock import Progress, silent
from dlp_plugins.embeddings.features import EmbeddingFile
from dlp_plugins.embeddings.labels import LabelFile
from dlp_plugins.embeddings.memory import ClassChunks
from dlp_plugins.embeddings.multi_label import (
    MultiOutcome,
    propagate_chunked_multi_label,
    write_multi_table,
)
from dlp_plugins.embeddings.options import Options
from dlp_plugins.embeddings.prototype_file import Prototypes
from dlp_plugins.embeddings.record import read_record
from dlp_plugins.embeddings.sharded import propagate_sharded, take_part
from dlp_plugins.embeddings.stored import StoredPropagation
from dlp_plugins.embeddings.work import at_work, forget
from dlp_plugins.errors import UsageError
from dlp_plugins.inputs import UNLABELED
from dlp_plugins.propagation import Propagator
from dlp_plugins.propagation.beliefs import Beliefs
from dlp_plugins.propagation.quality import Quality
from dlp_plugins.recipe.model import Recipe

# Where a process of several has died. The table is written whole or not at all.
AGAIN = "Start the command again; a table that is there is whole."


@dataclass(frozen=True)
class FilePropagation:
    """A propagation from files, checked and ready to run.

    source: the embeddings, not yet read.
    given: the known labels.
    beliefs: soft labels, weights and prior scores.
    prototypes: of the classes, if they have any.
    start: classifier to start from, if any.
    truth: [n] true labels, as `read_truth` gives them, if there is such a file.
    budget: bytes of memory to stay within.
    chunks: how many classes are solved at once.
    work: the record of a work folder, where large arrays lie in files; else None.
    refiner_in_memory: the arrays of a refiner fit there, where others lie in files.
    """

    options: Options
    recipe: Recipe
    propagator: Propagator
    source: EmbeddingFile
    given: LabelFile
    beliefs: Beliefs
    prototypes: Prototypes | None
    start: Any
    truth: Tensor | None
    device: torch.device
    budget: float
    chunks: ClassChunks
    work: dict[str, Any] | None
    refiner_in_memory: bool

    @property
    def out(self) -> Path | None:
        return self.options.table

    @property
    def index(self) -> Path | None:
        return self.options.index

    def run_multi_label(self, progress: Progress = silent) -> MultiOutcome:
        """As `run`, where a point may have several labels."""
        if self.out is None:
            raise UsageError("There is no file to write the table to.")
        with self.propagator.processes.together(AGAIN):
            return self._run_multi_label(self.out, progress)

    def _run_multi_label(self, out: Path, progress: Progress) -> MultiOutcome:
        outcome = propagate_chunked_multi_label(
            self.propagator, self.source.load, self.source.points, len(self.given.classes),
            self.chunks, self.beliefs, scratch=out.parent, device=self.device,
            progress=progress,
        )  # fmt: skip
        if not self.propagator.processes.first:
            outcome.scores.close()
            return outcome
        with outcome.scores, outcome.clock.phase("write", self.source.points) as tick:
            write_multi_table(out, outcome, self.given, self.options.probabilities, tick)
        return outcome

    def run(self, progress: Progress = silent) -> Outcome:
        """Propagate and write the table, then the index; `progress` is called in each phase.

        Of several processes, which share the work, the first one writes.
        """
        if self.out is None:
            raise UsageError("There is no file to write the table to.")
        if self.work is not None:
            with at_work(self.out, self.work, self.options.resume) as work:
                width = work.record["width"] or self.chunks.width
                job = replace(self, chunks=replace(self.chunks, width=width))
                stored = StoredPropagation(work, self.source, self.budget, self.refiner_in_memory)
                outcome = job._run(self.out, progress, stored)
                work.end()
                return outcome
        with self.propagator.processes.together(AGAIN):
            outcome = self._run(self.out, progress)
        forget(self.out)
        return outcome

    def _propagate(self, out: Path, progress: Progress, store: Store | None) -> Outcome:
        asked, classes = self.options, len(self.given.classes)
        if asked.shard_rows:
            return propagate_sharded(
                self.propagator, self.source, self.given.labels, classes, self.chunks,
                scratch=out.parent, progress=progress, calibrated=asked.calibrated,
                unknown=asked.unknown,
            )  # fmt: skip
        return propagate_chunked(
            self.propagator, self.source.load, self.given.labels, classes, self.chunks,
            scratch=out.parent, device=self.device, progress=progress, store=store,
            beliefs=self.beliefs, keep_index=self.index is not None, start=self.start,
            auto=asked.auto, robust=asked.robust,
            prototypes=None if self.prototypes is None else self.prototypes.load(),
            calibrated=asked.calibrated, unknown=asked.unknown,
        )  # fmt: skip

    def _run(self, out: Path, progress: Progress, store: Store | None = None) -> Outcome:
        outcome = self._propagate(out, progress, store)
        probabilities = self.options.probabilities
        if not self.propagator.processes.first:
            if self.options.shard_rows and probabilities:
                take_part(outcome.probabilities)
            outcome.probabilities.close()
            return replace(outcome, index=None)
        with outcome.probabilities, outcome.clock.phase("write", self.source.points) as tick:
            table.write_table(out, outcome, self.given, probabilities, tick)
        if self.index is not None and outcome.index is not None:
            with outcome.clock.phase("index"):
                record, calibration = read_record(self.source.path), outcome.calibration
                replace(
                    outcome.index,
                    classes=self.given.classes,
                    embedding=None if record is None else record.as_dict(),
                    temperature=None if calibration is None else calibration.temperature,
                ).save(self.index)
        return replace(outcome, index=None)  # gives its memory back

    def quality(self, outcome: Outcome) -> Quality | None:
        """Of the labels of unlabelled points, against the true labels; None without these."""
        if self.truth is None:
            return None
        judged = (self.truth != UNLABELED) & (self.given.labels == UNLABELED)
        p = outcome.probability
        p = None if p is None else p[judged]
        return Quality.of(outcome.labels[judged], self.truth[judged], p)
