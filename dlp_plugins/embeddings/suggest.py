"""From a file of embeddings to a table of points to label next: what `dlp suggest` does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlp_plugins import registry
from dlp_plugins.embeddings import table
from dlp_plugins.embeddings.clock import Clock, Progress, silent
from dlp_plugins.embeddings.defaults import FREE_SHARE, propagation_recipe
from dlp_plugins.embeddings.features import EmbeddingFile, open_embeddings
from dlp_plugins.embeddings.ids import Ids, read_ids
from dlp_plugins.embeddings.labels import read_labels
from dlp_plugins.embeddings.memory import choose_chunks, estimate_memory
from dlp_plugins.embeddings.selection import select_points
from dlp_plugins.environment import choose_device, free_memory
from dlp_plugins.errors import UsageError, did_you_mean
from dlp_plugins.inputs import UNLABELED
from dlp_plugins.propagation import Propagator
from dlp_plugins.propagation.propagator import build_parts
from dlp_plugins.recipe.build import build_propagator
from dlp_plugins.recipe.check import check_dependencies
from dlp_plugins.recipe.files import override_layer
from dlp_plugins.refiners.none import NoRefiner
from dlp_plugins.selectors.contract import Selector
from dlp_plugins.units import parse_bytes

PREFIXES = ("selector=", "selector.")  # of settings that are the selector's


@dataclass(frozen=True)
class FileSuggestion:
    """A choice of points from files, checked and ready to run.

    labels: [n] int64, -1 where there is none.
    ids: of the points, if they have any.
    """

    selector: Selector
    propagator: Propagator
    source: EmbeddingFile
    labels: Tensor
    num_classes: int
    ids: Ids | None
    count: int
    device: torch.device
    out: Path

    def run(self, progress: Progress = silent) -> tuple[Tensor, Clock]:
        """Choose points [count] and write the table; also the seconds of each phase."""
        clock = Clock(progress)
        with clock.phase("read", self.source.points) as tick:
            descriptors = self.source.load(tick)
        chosen = select_points(
            self.propagator, self.selector, descriptors, self.labels, self.num_classes, self.count,
            clock, self.device,
        )  # fmt: skip
        with clock.phase("write"):
            points = chosen.tolist()
            columns = {"index": points}
            if self.ids is not None:
                columns["id"] = [self.ids.values[i] for i in points]
            table.write_columns(self.out, columns)
        return chosen, clock


def prepare_suggestion(
    embeddings: Path | str,
    out: Path | str,
    *,
    count: int,
    labels: Path | str | None = None,
    selector: str | None = None,
    settings: Iterable[str] = (),
    ids: Path | str | None = None,
    key: str | None = None,
    memory: str | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> FileSuggestion:
    """Check everything that can be checked before the embeddings are read.

    Args:
        count: points to choose.
        labels: those that are known already; None where there are none.
        selector: its name; by default the most accurate.
        settings: `key=value` of the parts of a propagation, or of the selector: selector.seed=1.
        embeddings, out, ids, key, memory, device, overwrite: as `Options` takes them.

    Raises:
        As `run.prepare`.
    """
    out, settings = Path(out), list(settings)
    own = [s for s in settings if s.startswith(PREFIXES)]
    rest = [s for s in settings if not s.startswith(PREFIXES)]
    chosen = build_selector(selector, own)
    check_dependencies(propagation_recipe(rest), registry.EMBEDDINGS)
    where = choose_device(device)
    budget = parse_bytes(memory) if memory else FREE_SHARE * free_memory(where)
    table.check_out(out, overwrite, {"EMBEDDINGS": embeddings, "--labels": labels, "--ids": ids})
    source = open_embeddings(Path(embeddings), key)
    known = source.ids if ids is None else read_ids(Path(ids), source.points)
    given, classes = torch.full((source.points,), UNLABELED), 0
    if labels is not None:
        file = read_labels(Path(labels), source.points, ids=known)
        given, classes, known = file.labels, len(file.classes), file.ids
    recipe = propagation_recipe(rest, source.points)
    propagator = build_propagator(recipe)
    k, solver = propagator.graph.k, propagator.solver
    refines = chosen.needs_probabilities and not isinstance(propagator.refiner, NoRefiner)
    need = estimate_memory(source.points, source.dim, k, solver, recipe.graph.name, refines)
    choose_chunks(need, source.points, max(1, classes), budget)  # raises if it does not fit
    return FileSuggestion(chosen, propagator, source, given, classes, known, count, where, out)


def build_selector(name: str | None, settings: Iterable[str] = ()) -> Selector:
    """A selector by its name, or else by that in the settings, or else the default.

    Raises:
        RegistryError: no such selector.
        UsageError: it has no such parameter, or not such a value; the settings name another.
    """
    given = override_layer(settings).data.get("selector", {})
    parameters: dict[str, Any] = {"name": given} if isinstance(given, str) else dict(given)
    named = parameters.pop("name", None)
    if name and named and name != named:
        raise UsageError(
            f"--selector {name} and --set selector={named} name two selectors: leave one out."
        )
    chosen = name or named or registry.SELECTOR
    parts, used = build_parts({"selector": chosen}, parameters)
    if left := sorted(parameters.keys() - used):
        known = [p.name for p in registry.selectors.get(chosen).parameters]
        raise UsageError(
            f"--set selector.{left[0]}: the selector '{chosen}' has no such parameter."
            f"{did_you_mean(left[0], known)} It has: {', '.join(known) or 'none'}."
        )
    return parts["selector"]


def suggest_file(
    embeddings: Path | str, out: Path | str, *, progress: Progress = silent, **options: Any
) -> Tensor:
    """Write a table of the points of a file to label next; the points [count].

    Args:
        options: as `prepare_suggestion` takes them.

    Raises:
        As `prepare_suggestion`; LabelError: too few points without a label, or none with one for a
        selector that needs them; SaveError: the table cannot be written.

    >>> from dlp_plugins.embeddings.suggest import suggest_file
    >>> points = suggest_file("x.npy", "next.csv", count=50)  # doctest: +SKIP
    """
    return prepare_suggestion(embeddings, out, **options).run(progress)[0]
