"""From files of embeddings and labels to a table of pseudo-labels: what `dlp propagate` does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dlp_plugins.embeddings import table
from dlp_plugins.embeddings.chunked import Outcome, Progress, propagate_chunked, silent
from dlp_plugins.embeddings.features import EmbeddingFile, open_embeddings
from dlp_plugins.embeddings.ids import read_ids
from dlp_plugins.embeddings.labels import LabelFile, read_labels
from dlp_plugins.embeddings.memory import ClassChunks, choose_chunks, estimate_memory
from dlp_plugins.embeddings.prior import open_prior, with_prior
from dlp_plugins.embeddings.starts import build_start, with_start
from dlp_plugins.environment import choose_device, free_memory
from dlp_plugins.errors import UsageError, did_you_mean
from dlp_plugins.propagation import Propagator
from dlp_plugins.propagation.beliefs import Beliefs
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
SCALE = "certainty_scale"  # the one setting of pseudo_labels that matters without training
FREE_SHARE = 0.75  # of free memory, where no budget is given


@dataclass(frozen=True)
class FilePropagation:
    """A propagation from files, checked and ready to run.

    given: the known labels.
    beliefs: soft labels, weights and prior scores.
    start: classifier to start from, if any.
    auto: compare methods first.
    budget: bytes of memory to stay within.
    """

    recipe: Recipe
    propagator: Propagator
    source: EmbeddingFile
    given: LabelFile
    chunks: ClassChunks
    budget: float
    device: torch.device
    out: Path
    probabilities: bool
    beliefs: Beliefs
    start: Any
    auto: bool

    def run(self, progress: Progress = silent) -> Outcome:
        """Propagate and write the table; `progress` is called in each phase, 'write' the last."""
        outcome = propagate_chunked(
            self.propagator, self.source.load, self.given.labels, len(self.given.classes),
            self.chunks, scratch=self.out.parent, device=self.device, progress=progress,
            beliefs=self.beliefs, start=self.start, auto=self.auto,
        )  # fmt: skip
        with outcome.probabilities, outcome.clock.phase("write", self.source.points) as tick:
            table.write_table(self.out, outcome, self.given, self.probabilities, tick)
        return outcome


def prepare(
    embeddings: Path | str,
    labels: Path | str,
    out: Path | str,
    *,
    settings: Iterable[str] = (),
    ids: Path | str | None = None,
    key: str | None = None,
    classes: int | None = None,
    probabilities: bool = False,
    memory: str | None = None,
    device: str = "auto",
    overwrite: bool = False,
    prior: Path | str | None = None,
    prior_weight: float = 1.0,
    start: Any = None,
    auto: bool = False,
) -> FilePropagation:
    """Check everything that can be checked before the embeddings are read.

    Args:
        embeddings: .npy, .npz, .safetensors or .parquet, [points, numbers].
        labels: .csv, .npy, .npz or .parquet; see `read_labels`.
        out: the table, .csv or .parquet.
        settings: `key=value` as for `--set`, of the parts of a propagation.
        ids: file of what the points are called; else the embeddings' own column or array `id`.
        key: which array of the file of embeddings, where it holds several.
        classes: with it, the classes are 0..classes-1.
        probabilities: write the probability of each class too.
        memory: a size such as '4GB'; by default three quarters of what is free.
        device: 'auto' (a GPU where there is one), 'cpu' or 'cuda'.
        overwrite: replace the table if it exists.
        prior: scores of points and classes, .npy, .npz or .parquet; see `open_prior`.
        prior_weight: beta, total of a class's prior scores beside that of its labels.
        start: a classifier to start from, an estimator or its import path (see `STARTS`); alpha is
            then 0.8 unless the settings give one.
        auto: compare the default with other methods and take one that is clearly better.

    Raises:
        UsageError: a setting, a size, a device or a path is wrong.
        DataError, FeatureError, LabelError: a file cannot be used as it is.
        MemoryBudgetError: the budget does not hold the graph and one class.
    """
    out, settings = Path(out), list(settings)
    check_dependencies(propagation_recipe(settings), EMBEDDINGS)
    where = choose_device(device)
    budget = parse_bytes(memory) if memory else FREE_SHARE * free_memory(where)
    table.check_out(out, overwrite)
    source = open_embeddings(Path(embeddings), key)
    known = source.ids if ids is None else read_ids(Path(ids), source.points)
    started = build_start(start) if isinstance(start, str) else start
    if started is not None:
        check_estimator(started)
    recipe = propagation_recipe(settings, source.points, started is not None)
    given = read_labels(Path(labels), source.points, classes, known)
    if given.given is not None and (auto or started is not None):
        raise UsageError(
            f"{labels}: --start and --auto need plain labels, one class for each point and no "
            "weights."
        )
    beliefs = Beliefs(given.given)
    if prior is not None:
        given, scores = open_prior(Path(prior), source.points).match(given, prior_weight)
        beliefs = Beliefs(given.given, scores)
    propagator = build_propagator(recipe)
    k, solver = propagator.graph.k, propagator.solver
    refines = not isinstance(propagator.refiner, NoRefiner)
    need = estimate_memory(source.points, source.dim, k, solver, recipe.graph.name, refines)
    need = with_prior(need, beliefs.prior, source.points)
    if auto or started is not None:
        need = with_start(need, source.points, source.dim)
    chunks = choose_chunks(need, source.points, len(given.classes), budget, solver.columnwise)
    return FilePropagation(
        recipe, propagator, source, given, chunks, budget, where, out, probabilities, beliefs,
        started, auto,
    )  # fmt: skip


def propagate_file(
    embeddings: Path | str,
    labels: Path | str,
    out: Path | str,
    *,
    progress: Progress = silent,
    **options: Any,
) -> Outcome:
    """Spread the labels of a file over the embeddings of another and write the table.

    Args:
        options: as `prepare` takes them.

    Raises:
        As `prepare`; SaveError: the table or the scratch file cannot be written.

    >>> from dlp_plugins.embeddings.run import propagate_file
    >>> outcome = propagate_file("x.npy", "y.csv", "out.csv", settings=["graph.k=10"])
    ... # doctest: +SKIP
    """
    return prepare(embeddings, labels, out, **options).run(progress)


def propagation_recipe(settings: Iterable[str], points: int = 0, started: bool = False) -> Recipe:
    """The default components for so many embeddings, with what the settings change.

    Args:
        started: from a classifier.

    Raises:
        UsageError: a setting of anything else in a recipe.
    """
    defaults: dict[str, Any] = {part: {"name": EMBEDDINGS[part]} for part in PARTS}
    defaults["graph"] = {"name": graph_for(points), "k": EMBEDDINGS_K}
    defaults["solver"]["alpha"] = EMBEDDINGS_START_ALPHA if started else EMBEDDINGS_ALPHA
    layer = override_layer(settings)
    for key, value in layer.data.items():
        if key not in (*PARTS, "pseudo_labels"):
            raise UsageError(
                f"--set {key}: unknown here.{did_you_mean(key, PARTS)} Known: {', '.join(PARTS)}."
            )
        if key == "pseudo_labels" and (not isinstance(value, dict) or set(value) != {SCALE}):
            raise UsageError(f"--set pseudo_labels: of that table only {SCALE} is known here.")
    return check_layers([Layer("default", defaults), layer], EMBEDDINGS)
