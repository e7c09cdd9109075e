"""From files of embeddings and labels to a table of pseudo-labels: what `dlp propagate` does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlp_plugins._files.writing import check_place
from dlp_plugins.embeddings import table
from dlp_plugins.embeddings._index_file import SUFFIX
from dlp_plugins.embeddings.chunked import Outcome, Store, propagate_chunked
from dlp_plugins.embeddings.class_shares import read_class_shares
from dlp_plugins.embeddings.clock import Progress, silent
from dlp_plugins.embeddings.features import EmbeddingFile, open_embeddings
from dlp_plugins.embeddings.ids import read_ids
from dlp_plugins.embeddings.labels import LabelFile, read_labels
from dlp_plugins.embeddings.memory import (
    ClassChunks,
    MemoryBudgetError,
    choose_chunks,
    estimate_memory,
    estimate_sharded_memory,
    estimate_stored_memory,
    refiner_fits,
)
from dlp_plugins.embeddings.multi_label import (
    MultiOutcome,
    propagate_chunked_multi_label,
    write_multi_table,
)
from dlp_plugins.embeddings.prior import open_prior, with_prior
from dlp_plugins.embeddings.prototype_file import Prototypes, open_prototypes
from dlp_plugins.embeddings.prototypes import ALPHA as PROTOTYPE_ALPHA
from dlp_plugins.embeddings.prototypes import PARTS as PROTOTYPE_PARTS
from dlp_plugins.embeddings.prototypes import K as PROTOTYPE_K
from dlp_plugins.embeddings.prototypes import with_prototypes
from dlp_plugins.embeddings.record import read_record
from dlp_plugins.embeddings.sharded import DEFAULTS as SHARDED
from dlp_plugins.embeddings.sharded import propagate_sharded, take_part, unmet
from dlp_plugins.embeddings.starts import build_start, with_start
from dlp_plugins.embeddings.stored import StoredPropagation, can_be_stored
from dlp_plugins.embeddings.truth import read_truth
from dlp_plugins.embeddings.work import (
    VERSION,
    at_work,
    check_work,
    digest,
    forget,
    identity,
    work_folder,
)
from dlp_plugins.environment import choose_device, free_memory
from dlp_plugins.errors import UsageError, did_you_mean
from dlp_plugins.inputs import UNLABELED
from dlp_plugins.processes.group import join
from dlp_plugins.propagation import Propagator
from dlp_plugins.propagation.beliefs import Beliefs
from dlp_plugins.propagation.class_shares import ESTIMATE, known_shares
from dlp_plugins.propagation.quality import Quality
from dlp_plugins.propagation.start import check_estimator
from dlp_plugins.recipe.build import build_propagator
from dlp_plugins.recipe.check import check_dependencies, check_layers
from dlp_plugins.recipe.files import Layer, override_layer
from dlp_plugins.recipe.model import Recipe
from dlp_plugins.refiners.none import NoRefiner
from dlp_plugins.registry import (
    EMBEDDINGS,
    EMBEDDINGS_ALPHA,
    EMBEDDINGS_K,
    EMBEDDINGS_START_ALPHA,
    graph_for,
)
from dlp_plugins.units import parse_bytes

# The table holds no weights of classes, so the balancer has nothing to do here.
PARTS = tuple(part for part in EMBEDDINGS if part != "balancer")
# The settings of pseudo_labels that matter without training.
PSEUDO_LABELS = {"certainty_scale", "class_shares"}
FREE_SHARE = 0.75  # of free memory, where no budget is given
# Where a process of several has died. The table is written whole or not at all.
AGAIN = "Start the command again; a table that is there is whole."


@dataclass(frozen=True)
class FilePropagation:
    """A propagation from files, checked and ready to run.

    given: the known labels.
    beliefs: soft labels, weights and prior scores.
    start: classifier to start from, if any.
    auto: compare methods first.
    truth: [n] true labels, as `read_truth` gives them, if there is such a file.
    budget: bytes of memory to stay within.
    work: the record of a work folder, where large arrays lie in files; else None.
    resume: go on with the work that is there.
    room: the arrays of a refiner fit in memory, where others lie in files.
    sharded: the processes share the rows of the graph.
    """

    recipe: Recipe
    propagator: Propagator
    source: EmbeddingFile
    given: LabelFile
    chunks: ClassChunks
    budget: float
    device: torch.device
    out: Path | None
    probabilities: bool
    beliefs: Beliefs
    index: Path | None = None
    prototypes: Prototypes | None = None
    start: Any = None
    auto: bool = False
    robust: bool = False
    calibrated: bool = True
    unknown: bool = False
    truth: Tensor | None = None
    multi_label: bool = False
    work: dict[str, Any] | None = None
    resume: bool = False
    room: bool = True
    sharded: bool = False

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
            write_multi_table(out, outcome, self.given, self.probabilities, tick)
        return outcome

    def run(self, progress: Progress = silent) -> Outcome:
        """Propagate and write the table, then the index; `progress` is called in each phase.

        Of several processes, which share the work, the first one writes.
        """
        if self.out is None:
            raise UsageError("There is no file to write the table to.")
        if self.work is not None:
            with at_work(self.out, self.work, self.resume) as work:
                width = work.record["width"] or self.chunks.width
                job = replace(self, chunks=replace(self.chunks, width=width))
                stored = StoredPropagation(work, self.source, self.budget, self.room)
                outcome = job._run(self.out, progress, stored)
                work.end()
                return outcome
        with self.propagator.processes.together(AGAIN):
            outcome = self._run(self.out, progress)
        forget(self.out)
        return outcome

    def _propagate(self, out: Path, progress: Progress, store: Store | None) -> Outcome:
        if self.sharded:
            return propagate_sharded(
                self.propagator, self.source, self.given.labels, len(self.given.classes),
                self.chunks, scratch=out.parent, progress=progress,
                calibrated=self.calibrated, unknown=self.unknown,
            )  # fmt: skip
        return propagate_chunked(
            self.propagator, self.source.load, self.given.labels, len(self.given.classes),
            self.chunks, scratch=out.parent, device=self.device, progress=progress, store=store,
            beliefs=self.beliefs, keep_index=self.index is not None, start=self.start,
            auto=self.auto, robust=self.robust,
            prototypes=None if self.prototypes is None else self.prototypes.load(),
            calibrated=self.calibrated, unknown=self.unknown,
        )  # fmt: skip

    def _run(self, out: Path, progress: Progress, store: Store | None = None) -> Outcome:
        outcome = self._propagate(out, progress, store)
        if not self.propagator.processes.first:
            if self.sharded and self.probabilities:
                take_part(outcome.probabilities)
            outcome.probabilities.close()
            return replace(outcome, index=None)
        with outcome.probabilities, outcome.clock.phase("write", self.source.points) as tick:
            table.write_table(out, outcome, self.given, self.probabilities, tick)
        if self.index is not None and outcome.index is not None:
            with outcome.clock.phase("index"):
                record = read_record(self.source.path)
                replace(
                    outcome.index,
                    classes=self.given.classes,
                    embedding=None if record is None else record.as_dict(),
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


def prepare(
    embeddings: Path | str,
    labels: Path | str | None,
    out: Path | str | None,
    *,
    settings: Iterable[str] = (),
    ids: Path | str | None = None,
    key: str | None = None,
    classes: int | None = None,
    class_shares: Path | str | None = None,
    probabilities: bool = False,
    memory: str | None = None,
    device: str = "auto",
    overwrite: bool = False,
    prior: Path | str | None = None,
    prior_weight: float = 1.0,
    start: Any = None,
    auto: bool = False,
    save_index: Path | str | None = None,
    prototypes: Path | str | None = None,
    names: Path | str | None = None,
    robust: bool = False,
    calibrated: bool = True,
    unknown: bool = False,
    truth: Path | str | None = None,
    multi_label: bool = False,
    on_disk: bool = False,
    resume: bool = False,
    shard_rows: bool = False,
) -> FilePropagation:
    """Check everything that can be checked before the embeddings are read.

    Args:
        embeddings: .npy, .npz, .safetensors or .parquet, [points, numbers].
        labels: .csv, .npy, .npz or .parquet; see `read_labels`. Only with prototypes may there be
            none.
        out: the table, .csv or .parquet; None where none is written.
        settings: `key=value` as for `--set`, of the parts of a propagation.
        ids: file of what the points are called; else the embeddings' own column or array `id`.
        key: which array of the file of embeddings, where it holds several.
        classes: with it, the classes are 0..classes-1.
        class_shares: sizes of the classes among unlabelled points, as `read_class_shares` takes
            them; by default the setting pseudo_labels.class_shares.
        probabilities: write the probability of each class too.
        memory: a size such as '4GB'; by default three quarters of what is free.
        device: 'auto' (a GPU where there is one), 'cpu' or 'cuda'.
        overwrite: replace the table and the index if they exist.
        prior: scores of points and classes, .npy, .npz or .parquet; see `open_prior`.
        prior_weight: beta, total of a class's prior scores beside that of its labels.
        start: a classifier to start from, an estimator or its import path (see `STARTS`); alpha is
            then 0.8 unless the settings give one.
        auto: compare the default with other methods and take one that is clearly better.
        robust: labels that the rest contradicts count less.
        save_index: a file by which `dlp assign` labels new points, .safetensors.
        prototypes: an embedding of each class, such as its name's, in a file like embeddings; then
            the defaults are those of `prototypes.propagate_prototypes`.
        names: of the prototypes, a line each; by default their row numbers.
        calibrated: find the probability that each label is right, for a column `probability`.
        unknown: add a column `unknown`, how likely each point belongs to no known class.
        truth: file of true labels, as `labels`, to measure the found ones by.
        multi_label: a point may have several labels; see `propagate_multi_label`. Nothing is
            refined, calibrated or measured; `probabilities` writes scores.
        on_disk: large arrays lie in files of a folder beside the table, `OUT.work`, whatever the
            memory; without it, where they do not fit. With graph `cells`, and not with
            `prototypes`, `start`, `auto`, `robust`, `save_index` or `multi_label`.
        resume: go on with the work that an earlier call has left there; if there is none, begin.
        shard_rows: the processes share the rows of the graph, so that none holds it whole; then the
            defaults are those of `sharded.DEFAULTS`, on the CPU. Embeddings in a .npy file, and not
            with what `on_disk` does not go with, nor with `prior` or soft labels.

    Raises:
        UsageError: a setting, a size, a device or a path is wrong.
        DataError, FeatureError, LabelError: a file cannot be used as it is.
        MemoryBudgetError: the budget does not hold the graph and one class.
    """
    if robust and (auto or start is not None or prototypes is not None):
        raise UsageError("--robust goes with neither --start, --auto nor --prototypes.")
    out, settings = None if out is None else Path(out), list(settings)
    if shard_rows:
        _check_sharded(
            prototypes=prototypes, start=start, auto=auto or None, robust=robust or None,
            prior=prior, save_index=save_index, multi_label=multi_label or None,
            on_disk=on_disk or None, resume=resume or None,
        )  # fmt: skip
        device = "cpu" if device == "auto" else device
    named = prototypes is not None
    if multi_label:
        if unknown or truth is not None:
            raise UsageError("--multi-label: --unknown and --truth need one label per point.")
        if named or start is not None or auto or robust or save_index is not None:
            raise UsageError(
                "--multi-label does not go with --prototypes, --start, --auto, --robust or "
                "--save-index."
            )
        settings.append("refiner=none")
    if named:
        _check_named(classes, prior, save_index, start, auto)
    elif labels is None or names is not None:
        missing = "labels" if labels is None else "prototypes"
        raise UsageError(f"Give --{missing} FILE{' or --prototypes FILE' * (labels is None)}.")
    check_dependencies(propagation_recipe(settings, named=named, sharded=shard_rows), EMBEDDINGS)
    where = choose_device(device)
    processes = join(where.type)
    free = free_memory(where) / (processes.local_size if where.type == "cpu" else 1)
    budget = parse_bytes(memory) if memory else FREE_SHARE * free
    # an error in one process, such as a file that one machine lacks, is one of all
    with processes.together(AGAIN):
        found = out is not None and work_folder(out).exists()
        if out is not None:
            # the table that the work is for may be there, if it was to be replaced or just written
            table.check_out(out, overwrite or (resume and found))
        index = None if save_index is None else Path(save_index)
        if index is not None:
            check_place(index, (SUFFIX,), "the index", overwrite)
        source = open_embeddings(Path(embeddings), key, budget=budget)
        known = source.ids if ids is None else read_ids(Path(ids), source.points)
        started = build_start(start) if isinstance(start, str) else start
        if started is not None:
            check_estimator(started)
        recipe = propagation_recipe(settings, source.points, named, started is not None, shard_rows)
        classes_of = None
        if prototypes is not None:
            names = None if names is None else Path(names)
            classes_of = open_prototypes(Path(prototypes), source.dim, names)
            labels = None if labels is None else Path(labels)
            given = classes_of.labels(labels, source.points, known)
        else:
            assert labels is not None
            given = read_labels(Path(labels), source.points, classes, known, multi_label)
        if given.given is not None and (auto or started is not None):
            raise UsageError(
                f"{labels}: --start and --auto need plain labels, one class for each point and no "
                "weights."
            )
        beliefs = Beliefs(given.given)
        if prior is not None:
            given, scores = open_prior(Path(prior), source.points).match(given, prior_weight)
            beliefs = Beliefs(given.given, scores)
        propagator = replace(build_propagator(recipe), processes=processes)
        if classes_of is not None:
            propagator = with_prototypes(propagator, len(classes_of.names))
        if class_shares is not None:
            shares = read_class_shares(str(class_shares), given.classes)
            propagator = replace(propagator, class_shares=shares)
        if shard_rows:
            needs = unmet(propagator, source) + ["--device cpu"] * (where.type != "cpu")
            needs += ["labels of one class and no weight"] * (given.given is not None)
            needs += ["--overwrite, as there is unfinished work"] * (found and not overwrite)
            if needs:
                raise UsageError(f"--shard-rows needs {', '.join(needs)}.")
        # refused now, and not after the graph is built
        propagator.solver.with_shares(
            known_shares(propagator.class_shares, given.labels, len(given.classes))
        )
        k, solver = propagator.graph.k, propagator.solver
        refines = not isinstance(propagator.refiner, NoRefiner)
        others = prototypes, started, auto or None, index, robust or None, multi_label or None
        estimates = propagator.class_shares == ESTIMATE
        if not processes.alone:
            inputs = source.points, source.dim, digest(given.labels), recipe.as_dict()
            if len({str(seen) for seen in processes.each(inputs)}) > 1:
                raise UsageError(
                    "The processes were given different embeddings, labels or settings. Start all "
                    "with the same command, and give every machine the same files."
                )
        # the same chunks in all processes, whose memory may differ
        budget = min(processes.each(budget))
        sizes = source.points, source.dim, k, solver
        classes_count = len(given.classes)

        def in_memory() -> ClassChunks:
            need = estimate_memory(*sizes, recipe.graph.name, refines, estimates)
            need = with_prior(need, beliefs.prior, source.points)
            if auto or started is not None:
                need = with_start(need, source.points, source.dim)
            if index is not None:
                need = need.with_index(source.points, source.dim, k)
            return choose_chunks(need, source.points, classes_count, budget, solver.columnwise)

        def through_files() -> ClassChunks:
            need = with_prior(
                estimate_stored_memory(*sizes, refines, propagator.refiner.by_blocks),
                beliefs.prior,
                source.points,
            )
            return choose_chunks(need, source.points, classes_count, budget)

        def by_rows() -> ClassChunks:
            need = estimate_sharded_memory(*sizes, processes.size)
            return choose_chunks(
                need, source.points, classes_count, budget, processes=processes.size
            )

        possible = (
            out is not None and where.type == "cpu" and can_be_stored(propagator)
            and all(other is None for other in others)
        )  # fmt: skip
        if not possible and (on_disk or (resume and found)):
            raise UsageError(
                "Work in files needs the CPU, one process, --set graph=cells and a solver such as "
                "cg, and does not go with --prototypes, --start, --auto, --robust, --save-index "
                "or --multi-label."
            )
        stored = on_disk or (resume and found)
        try:
            chunks = by_rows() if shard_rows else through_files() if stored else in_memory()
        except MemoryBudgetError:
            if stored or shard_rows or not possible:
                raise
            chunks, stored = through_files(), True
        record = None
        if out is not None and (stored or found):
            record = {
                "version": VERSION,
                "embeddings": [identity(embeddings), key],
                # and of the rows that ids, which may lie beside the embeddings, match them with
                "labels": [identity(labels), digest(given.labels)],
                "ids": identity(ids),
                "prior": [identity(prior), prior_weight],
                "settings": {part: recipe.as_dict()[part] for part in PARTS},
                "class shares": str(propagator.class_shares),
                "classes": [str(c) for c in given.classes],
                "width": chunks.width,
            }
            check_work(out, record, resume, overwrite)
        return FilePropagation(
            recipe, propagator, source, given, chunks, budget, where, out, probabilities, beliefs,
            index, classes_of, started, auto, robust, calibrated, unknown,
            None if truth is None else read_truth(Path(truth), given), multi_label,
            record if stored else None, resume,
            refiner_fits(
                estimate_stored_memory(*sizes, refines), source.points, classes_count, budget
            ),
            shard_rows,
        )  # fmt: skip


def propagate_file(
    embeddings: Path | str,
    labels: Path | str,
    out: Path | str,
    *,
    progress: Progress = silent,
    **options: Any,
) -> Outcome | MultiOutcome:
    """Spread the labels of a file over the embeddings of another and write the table.

    Args:
        options: as `prepare` takes them.

    Raises:
        As `prepare`; SaveError: the table or the scratch file cannot be written.

    >>> from dlp_plugins.embeddings.run import propagate_file
    >>> outcome = propagate_file("x.npy", "y.csv", "out.csv", settings=["graph.k=10"])
    ... # doctest: +SKIP
    """
    job = prepare(embeddings, labels, out, **options)
    return job.run_multi_label(progress) if job.multi_label else job.run(progress)


def _check_named(classes: int | None, prior: Any, save_index: Any, start: Any, auto: bool) -> None:
    """Raise UsageError for an option that does not go with prototypes."""
    given = {
        "classes": classes, "prior": prior, "save-index": save_index, "start": start,
        "auto": auto or None,
    }  # fmt: skip
    for option, value in given.items():
        if value is not None:
            raise UsageError(f"--{option} does not go with --prototypes; leave it out.")


def _check_sharded(**given: Any) -> None:
    """Raise UsageError for an option that does not go with --shard-rows."""
    for option, value in given.items():
        if value is not None:
            option = option.replace("_", "-")
            raise UsageError(f"--{option} does not go with --shard-rows; leave it out.")


def propagation_recipe(
    settings: Iterable[str],
    points: int = 0,
    named: bool = False,
    started: bool = False,
    sharded: bool = False,
) -> Recipe:
    """The default components for so many embeddings, with what the settings change.

    Args:
        named: the classes have prototypes, which join the graph.
        started: from a classifier.
        sharded: processes share the rows of the graph.

    Raises:
        UsageError: a setting of anything else in a recipe.
    """
    defaults: dict[str, Any] = {part: {"name": EMBEDDINGS[part]} for part in PARTS}
    defaults["graph"] = {"name": graph_for(points), "k": EMBEDDINGS_K}
    defaults["solver"]["alpha"] = EMBEDDINGS_START_ALPHA if started else EMBEDDINGS_ALPHA
    if named:
        defaults |= {part: {"name": name} for part, name in PROTOTYPE_PARTS.items()}
        defaults["graph"]["k"], defaults["affinity"]["gamma"] = PROTOTYPE_K, 1.0
        defaults["solver"]["alpha"] = PROTOTYPE_ALPHA
    if sharded:
        for part, name in SHARDED.items():
            defaults[part]["name"] = name
    layer = override_layer(settings)
    for key, value in layer.data.items():
        if key not in (*PARTS, "pseudo_labels"):
            raise UsageError(
                f"--set {key}: unknown here.{did_you_mean(key, PARTS)} Known: {', '.join(PARTS)}."
            )
        if key == "pseudo_labels" and not (
            isinstance(value, dict) and value.keys() <= PSEUDO_LABELS
        ):
            known = " and ".join(sorted(PSEUDO_LABELS))
            raise UsageError(f"--set pseudo_labels: of that table only {known} are known here.")
    recipe = check_layers([Layer("default", defaults), layer], EMBEDDINGS)
    for part in ("transform", "refiner") if named else ():
        if getattr(recipe, part).name != "none":
            raise UsageError(
                f"--set {part}: prototypes need {part}=none, as images and names lie "
                "in different regions of a model's space."
            )
    return recipe
