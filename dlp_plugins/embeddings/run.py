"""From files of embeddings and labels to a table of pseudo-labels: what `dlp propagate` does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dlp_plugins._files.writing import check_place
from dlp_plugins.embeddings import table
from dlp_plugins.embeddings._index_file import SUFFIX
from dlp_plugins.embeddings.chunked import Outcome
from dlp_plugins.embeddings.class_shares import read_class_shares
from dlp_plugins.embeddings.clock import Progress, silent
from dlp_plugins.embeddings.defaults import FREE_SHARE, PARTS, propagation_recipe
from dlp_plugins.embeddings.features import EmbeddingFile, open_embeddings
from dlp_plugins.embeddings.ids import read_ids
from dlp_plugins.embeddings.job import AGAIN, FilePropagation
from dlp_plugins.embeddings.labels import LabelFile, read_labels
from dlp_plugins.embeddings.memory import ClassChunks
from dlp_plugins.embeddings.memory_fit import MemoryFit
from dlp_plugins.embeddings.multi_label import MultiOutcome
from dlp_plugins.embeddings.options import Options
from dlp_plugins.embeddings.prior import open_prior
from dlp_plugins.embeddings.prototype_file import Prototypes, open_prototypes
from dlp_plugins.embeddings.prototypes import with_prototypes
from dlp_plugins.embeddings.sharded import unmet
from dlp_plugins.embeddings.starts import build_start
from dlp_plugins.embeddings.truth import read_truth
from dlp_plugins.embeddings.work import VERSION, check_work, digest, identity, is_unfinished
from dlp_plugins.environment import choose_device, free_memory
from dlp_plugins.errors import UsageError
from dlp_plugins.processes.group import Processes, join
from dlp_plugins.propagation import Propagator
from dlp_plugins.propagation.beliefs import Beliefs
from dlp_plugins.propagation.class_shares import known_shares
from dlp_plugins.propagation.start import check_estimator
from dlp_plugins.recipe.build import build_propagator
from dlp_plugins.recipe.check import check_dependencies
from dlp_plugins.recipe.model import Recipe
from dlp_plugins.registry import EMBEDDINGS
from dlp_plugins.units import parse_bytes


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
        options: as `Options` takes them.

    Raises:
        As `prepare`; SaveError: the table or the scratch file cannot be written.

    >>> from dlp_plugins.embeddings.run import propagate_file
    >>> outcome = propagate_file("x.npy", "y.csv", "out.csv", settings=["graph.k=10"])
    ... # doctest: +SKIP
    """
    job = prepare(Options(embeddings, labels, out, **options))
    return job.run_multi_label(progress) if job.options.multi_label else job.run(progress)


def prepare(options: Options) -> FilePropagation:
    """Check everything that can be checked before the embeddings are read.

    Raises:
        UsageError: a setting, a size, a device or a path is wrong.
        DataError, FeatureError, LabelError: a file cannot be used as it is.
        MemoryBudgetError: the budget does not hold the graph and one class.
    """
    options.check()
    if options.shard_rows and options.device == "auto":
        options = replace(options, device="cpu")
    check_dependencies(_recipe(options), EMBEDDINGS)
    device = choose_device(options.device)
    processes = join(device.type)
    free = free_memory(device) / (processes.local_size if device.type == "cpu" else 1)
    budget = parse_bytes(options.memory) if options.memory else FREE_SHARE * free
    # an error in one process, such as a file that one machine lacks, is one of all
    with processes.together(AGAIN):
        unfinished = _check_places(options)
        inputs = _open(options, budget)
        recipe = _recipe(options, inputs.source.points, inputs.start is not None)
        propagator = _build(options, recipe, inputs, processes)
        if options.shard_rows:
            needs = unmet(propagator, inputs.source) + ["--device cpu"] * (device.type != "cpu")
            needs += ["labels of one class and no weight"] * (inputs.given.given is not None)
            replaced = unfinished and not options.overwrite
            needs += ["--overwrite, as there is unfinished work"] * replaced
            if needs:
                raise UsageError(f"--shard-rows needs {', '.join(needs)}.")
        # refused now, and not after the graph is built
        given = inputs.given
        propagator.solver.with_shares(
            known_shares(propagator.class_shares, given.labels, len(given.classes))
        )
        if not processes.alone:
            _check_same(inputs, recipe, processes)
        # the same chunks in all processes, whose memory may differ
        budget = min(processes.each(budget))
        source, started = inputs.source, inputs.start is not None
        fit = MemoryFit(
            options, recipe, propagator, source.points, source.dim, len(given.classes),
            inputs.beliefs.prior, started, budget,
        )  # fmt: skip
        chunks, stored = fit.choose(device, unfinished)
        record = None
        if options.table is not None and (stored or unfinished):
            record = _record(options, recipe, propagator, given, chunks)
            check_work(options.table, record, options.resume, options.overwrite)
        truth = None if options.truth is None else read_truth(Path(options.truth), given)
        return FilePropagation(
            options, recipe, propagator, source, given, inputs.beliefs, inputs.prototypes,
            inputs.start, truth, device, budget, chunks, record if stored else None,
            fit.refiner_in_memory,
        )  # fmt: skip


def _recipe(options: Options, points: int = 0, started: bool = False) -> Recipe:
    named = options.prototypes is not None
    return propagation_recipe(options.all_settings, points, named, started, options.shard_rows)


def _check_places(options: Options) -> bool:
    """Raise where the table or the index cannot be written; whether there is unfinished work."""
    out, inputs = options.table, options.inputs
    unfinished = out is not None and bool(out.name) and is_unfinished(out)
    if out is not None:
        # the table that the work is for may be there, if it was to be replaced or just written
        table.check_out(out, options.overwrite or (options.resume and unfinished), inputs)
    if options.index is not None:
        check_place(options.index, (SUFFIX,), "the index", options.overwrite, inputs)
    return unfinished


@dataclass(frozen=True)
class _Inputs:
    """What was read, as in `FilePropagation`."""

    source: EmbeddingFile
    given: LabelFile
    beliefs: Beliefs
    prototypes: Prototypes | None
    start: Any


def _open(options: Options, budget: float) -> _Inputs:
    source = open_embeddings(Path(options.embeddings), options.key, budget=budget)
    ids = source.ids if options.ids is None else read_ids(Path(options.ids), source.points)
    start = build_start(options.start) if isinstance(options.start, str) else options.start
    if start is not None:
        check_estimator(start)
    labels = None if options.labels is None else Path(options.labels)
    prototypes = None
    if options.prototypes is not None:
        names = None if options.names is None else Path(options.names)
        prototypes = open_prototypes(Path(options.prototypes), source.dim, names)
        given = prototypes.labels(labels, source.points, ids)
    else:
        assert labels is not None
        given = read_labels(labels, source.points, options.classes, ids, options.multi_label)
    if given.given is not None and (options.auto or start is not None):
        raise UsageError(
            f"{labels}: --start and --auto need plain labels, one class for each point and no "
            "weights."
        )
    beliefs = Beliefs(given.given)
    if options.prior is not None:
        prior = open_prior(Path(options.prior), source.points)
        given, scores = prior.match(given, options.prior_weight)
        beliefs = Beliefs(given.given, scores)
    return _Inputs(source, given, beliefs, prototypes, start)


def _build(options: Options, recipe: Recipe, inputs: _Inputs, processes: Processes) -> Propagator:
    propagator = replace(build_propagator(recipe), processes=processes)
    if inputs.prototypes is not None:
        propagator = with_prototypes(propagator, len(inputs.prototypes.names))
    if options.class_shares is not None:
        shares = read_class_shares(str(options.class_shares), inputs.given.classes)
        propagator = replace(propagator, class_shares=shares)
    propagator.check_shares()
    return propagator


def _check_same(inputs: _Inputs, recipe: Recipe, processes: Processes) -> None:
    """Raise UsageError where processes were given different inputs."""
    source = inputs.source
    seen = source.points, source.dim, digest(inputs.given.labels), recipe.as_dict()
    if len({str(one) for one in processes.each(seen)}) > 1:
        raise UsageError(
            "The processes were given different embeddings, labels or settings. Start all with the "
            "same command, and give every machine the same files."
        )


def _record(
    options: Options, recipe: Recipe, propagator: Propagator, given: LabelFile, chunks: ClassChunks
) -> dict[str, Any]:
    """What work in files is of: it is resumed only where all of this is as it was."""
    return {
        "version": VERSION,
        "embeddings": [identity(options.embeddings), options.key],
        # and of the rows that ids, which may lie beside the embeddings, match them with
        "labels": [identity(options.labels), digest(given.labels)],
        "ids": identity(options.ids),
        "prior": [identity(options.prior), options.prior_weight],
        "settings": {part: recipe.as_dict()[part] for part in PARTS},
        "class shares": str(propagator.class_shares),
        "classes": [str(c) for c in given.classes],
        "width": chunks.width,
    }
