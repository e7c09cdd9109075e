"""How long a propagation would take here, how much memory, and which components to choose.

Each candidate is run at a small size; its time is scaled by how its cost grows. Memory follows from
the sizes of arrays (`memory.py`). Both are estimates; docs/embeddings.md states how good.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from dlp_plugins import registry
from dlp_plugins._files.reading import read_json
from dlp_plugins._files.writing import write_text
from dlp_plugins.embeddings.memory import (
    STORED_REFINER_ARRAYS,
    Memory,
    estimate_memory,
    estimate_stored_memory,
    refiner_fits,
)
from dlp_plugins.errors import DataError
from dlp_plugins.graph import Graph, assemble
from dlp_plugins.graphs._cells_cpu import PROBED_FAMILIES
from dlp_plugins.graphs._kmeans import MAX_LINKED_CELLS
from dlp_plugins.inputs import UNLABELED
from dlp_plugins.propagation import equal_shares, label_matrix
from dlp_plugins.refiners.contract import Given
from dlp_plugins.units import format_bytes, format_seconds

# How the cost of each graph builder grows with the number of points n, at its own defaults. `exact`
# was fitted to 20,000 and 50,000 points x 128, `cells` to 20,000 and 1,000,000. HNSW and NN-descent
# are left out: caches and compilation make their small runs a poor guide to large ones.
GROWTH: dict[str, Callable[[float], float]] = {
    "exact": lambda n: n * (33_000 + n),  # a cost per point, and one per pair
    # its cells, and centroids to choose among
    "cells": lambda n: n * (5_000 + _centroids(n / 512)),
    "faiss_ivf": lambda n: n**1.5,  # sqrt(n) lists, of which a fixed number is probed
}
SOLVERS = ("cg", "spectral")
STORED_BUILDER, STORED_SOLVER = "cells", "cg"  # of those, which work on files


def _centroids(cells: float) -> float:
    """Centroids that a point is compared with: all, or some families of many."""
    few = cells <= MAX_LINKED_CELLS
    return cells if few else (1 + PROBED_FAMILIES) * cells**0.5


# Arrays [n, c] that the default's refiner reads and writes in all: 8 steps, in each of them three
# smoothing steps of three arrays, the scores and the balance.
REFINER_PASSES = 220
# Seconds that an exact component may take; beyond that the fastest is recommended.
EXACT_SECONDS = 600.0

SEARCH_POINTS = 20_000
SOLVE_POINTS = 50_000
SOLVE_COLUMNS = 32
SOLVE_STEPS = 4
SPECTRAL_POINTS = 2_000
REFINE_CLASSES = 32
# Entries of a graph for each neighbour-list entry: 2 if no choice is mutual, 1 if all are. Measured
# 1.4 to 1.55 on clustered data, k = 30 to 50.
ENTRIES_PER_NEIGHBOR = 1.5


@dataclass(frozen=True)
class Rates:
    """Costs in seconds, measured on one machine, for descriptors of `dim` numbers and k neighbours.

    search: by builder, seconds over GROWTH at the size measured.
    edge: building the graph, per neighbour-list entry.
    step: one iteration of conjugate gradient, per graph entry and class.
    spectral: the eigenbasis of the spectral solver, per graph entry.
    transform: the default transform, per point.
    refine: the default refiner, per point and class.
    """

    dim: int
    k: int
    search: dict[str, float]
    edge: float
    step: float
    spectral: float
    transform: float
    refine: float


@dataclass(frozen=True)
class Choice:
    """A component and what it would cost.

    seconds: on this machine. memory: bytes at its peak. exact: not an approximation.
    fits: within the budget of memory.
    on_disk: its large arrays lie in files.
    """

    kind: str
    name: str
    seconds: float
    memory: float
    exact: bool
    fits: bool
    on_disk: bool = False


@dataclass(frozen=True)
class Plan:
    """Candidates and the choice among them.

    transform_seconds: of the default transform.
    assemble_seconds, assemble_memory: building the graph from neighbour lists.
    refiner: the default one, which may not fit; it is then left out of the sums.
    reasons: a sentence for each choice.
    disk: bytes of files at their peak, where large arrays lie in files; else 0.
    """

    builders: list[Choice]
    solvers: list[Choice]
    transform_seconds: float
    assemble_seconds: float
    assemble_memory: float
    builder: Choice
    solver: Choice
    refiner: Choice
    reasons: list[str]
    disk: float = 0.0

    @property
    def picked(self) -> tuple[Choice, Choice, Choice]:
        """Builder, solver and refiner; one that does not fit is not used."""
        return self.builder, self.solver, self.refiner

    @property
    def fits(self) -> bool:
        """Whether there are a builder and a solver within the budget."""
        return self.builder.fits and self.solver.fits

    @property
    def on_disk(self) -> bool:
        """Whether large arrays lie in files."""
        return self.builder.on_disk

    @property
    def seconds(self) -> float:
        """Of the chosen components, without reading and writing files."""
        refining = self.refiner.seconds if self.refiner.fits else 0.0
        before = self.transform_seconds + self.builder.seconds + self.assemble_seconds
        return before + self.solver.seconds + refining

    @property
    def memory(self) -> float:
        """Bytes at the peak of the largest phase, besides the program itself."""
        refining = self.refiner.memory if self.refiner.fits else 0.0
        return max(self.builder.memory, self.assemble_memory, self.solver.memory, refining)


# -- measuring ----------------------------------------------------------------------------------


def measure(dim: int, k: int, progress: Callable[[str], None] = lambda what: None) -> Rates:
    """Run every candidate at a small size; a few seconds in all."""
    search = {}
    for name in candidates():
        progress(name)
        search[name] = _measure_search(name, dim, k)
    progress("cg")
    edge, step = _measure_solve(k)
    progress("spectral")
    spectral = _measure_spectral(k)
    progress("refiner")
    return Rates(dim, k, search, edge, step, spectral, *_measure_default_steps(dim, k))


def candidates() -> list[str]:
    """Builders with a known growth of cost, whose packages are installed."""
    known = registry.graphs.names()
    return [n for n in GROWTH if n in known and not registry.graphs.get(n).missing()]


def _measure_search(name: str, dim: int, k: int) -> float:
    builder = registry.graphs.build(name, k=k)
    points = _clustered(SEARCH_POINTS, dim)
    builder.neighbors(points[: SEARCH_POINTS // 5])  # warms up threads and caches
    return _seconds(lambda: builder.neighbors(points)) / GROWTH[name](SEARCH_POINTS)


def _measure_solve(k: int) -> tuple[float, float]:
    indices = torch.randint(SOLVE_POINTS, (SOLVE_POINTS, k), generator=_generator())
    weights = torch.rand(indices.shape, generator=_generator())
    edge = _seconds(lambda: assemble(indices, weights)) / indices.numel()
    graph = assemble(indices, weights)
    # no tolerance that can be reached: on a random graph the solver would stop early
    cg = registry.solvers.build("cg", max_iterations=SOLVE_STEPS, tolerance=1e-30)
    labels = label_matrix(torch.arange(SOLVE_POINTS) % SOLVE_COLUMNS, SOLVE_COLUMNS)
    products = SOLVE_STEPS + 1  # one for the residual at the end
    seconds = _seconds(lambda: cg.solve(cg.prepare(graph), labels))
    return edge, seconds / (products * graph.num_entries * SOLVE_COLUMNS)


def _measure_spectral(k: int) -> float:
    graph = _neighbor_graph(SPECTRAL_POINTS, k)
    solver = registry.solvers.build("spectral")
    return _seconds(lambda: solver.prepare(graph)) / graph.num_entries


def _measure_default_steps(dim: int, k: int) -> tuple[float, float]:
    """Of the transform and the refiner of the default."""
    points = _clustered(SEARCH_POINTS, dim)
    transform = registry.transforms.build(registry.EMBEDDINGS["transform"])
    seconds = _seconds(lambda: transform.apply(points, transform.statistics(points)))
    indices = torch.randint(SEARCH_POINTS, (SEARCH_POINTS, k), generator=_generator())
    graph = assemble(indices, torch.ones(indices.shape))
    labels = torch.full((SEARCH_POINTS,), UNLABELED)
    labels[:REFINE_CLASSES] = torch.arange(REFINE_CLASSES)
    p = torch.rand(SEARCH_POINTS, REFINE_CLASSES, generator=_generator())
    p /= p.sum(dim=1, keepdim=True)
    given, shares = Given.from_labels(labels, REFINE_CLASSES), equal_shares(REFINE_CLASSES)
    refiner = registry.refiners.build(registry.EMBEDDINGS["refiner"])
    refining = _seconds(lambda: refiner.refine(points, graph, p, given, shares))
    return seconds / SEARCH_POINTS, refining / (SEARCH_POINTS * REFINE_CLASSES)


def _neighbor_graph(points: int, k: int) -> Graph:
    neighbors = registry.graphs.build("exact", k=k).neighbors(_clustered(points, 16))
    return assemble(neighbors.indices, neighbors.similarities.clamp(min=0))


def _clustered(points: int, dim: int) -> torch.Tensor:
    """[n, d] unit rows in clusters, near a subspace of few dimensions as descriptors are."""
    generator = _generator()
    few = min(dim, 16)
    centers = torch.randn(100, few, generator=generator)
    chosen = torch.randint(len(centers), (points,), generator=generator)
    latent = centers[chosen] + 0.8 * torch.randn(points, few, generator=generator)
    axes = torch.randn(few, dim, generator=generator) / dim**0.5
    noise = 0.3 * (few / dim) ** 0.5 * torch.randn(points, dim, generator=generator)
    return torch.nn.functional.normalize(latent @ axes + noise, dim=1)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _seconds(run: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def load_rates(path: Path, dim: int, k: int) -> Rates:
    """Rates that `save_rates` wrote.

    Raises:
        DataError: not such a file, or measured for another dim or k.
    """
    try:
        rates = Rates(**read_json(path))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"{path}: is no file of rates that `dlp plan` wrote ({error}). Give the name of one, "
            "or a name that is not there yet: it is written then."
        ) from None
    if (rates.dim, rates.k) != (dim, k):
        raise DataError(
            f"{path}: measured for --dim {rates.dim} --k {rates.k}, not {dim} and {k}. "
            "Name another file to measure again."
        )
    return rates


def save_rates(path: Path, rates: Rates) -> None:
    """Write rates as JSON, whole or not at all.

    Raises:
        SaveError: the file cannot be written.
    """
    write_text(path, json.dumps(asdict(rates), indent=2) + "\n")


# -- predicting ---------------------------------------------------------------------------------


def predict(rates: Rates, points: int, classes: int, budget: float) -> Plan:
    """What each candidate would cost for n points and c classes, and which to choose.

    Where no choice fits in memory, that with large arrays in files is among them.

    Args:
        budget: bytes of memory to stay within.
    """
    found = _predict_in_memory(rates, points, classes, budget)
    enough = found.fits and found.assemble_memory <= budget
    if enough or STORED_BUILDER not in rates.search or points <= rates.k:
        return found
    stored = _predict_stored(rates, points, classes, budget, found)
    return stored if stored.fits else found


def _predict_stored(rates: Rates, n: int, classes: int, budget: float, other: Plan) -> Plan:
    """With large arrays in files; candidates in memory are those of the other plan."""
    solver = registry.solvers.build(STORED_SOLVER)
    name = registry.EMBEDDINGS["refiner"]
    seconds = rates.refine * n * classes
    memory = estimate_stored_memory(n, rates.dim, rates.k, solver, refines=True)
    fits = memory.held + memory.refine <= budget
    room = refiner_fits(memory, n, classes, budget)
    arrays = 4.0 * n * classes * STORED_REFINER_ARRAYS if room else 0.0
    refiner = Choice("refiner", name, seconds, memory.refine + arrays, True, fits, on_disk=not room)
    if not fits:
        memory = estimate_stored_memory(n, rates.dim, rates.k, solver)
    searching = rates.search[STORED_BUILDER] * GROWTH[STORED_BUILDER](n)
    builder = Choice(
        "graph", STORED_BUILDER, searching, memory.search, False, memory.search <= budget, True
    )
    steps = solver.max_iterations + 1
    solving = rates.step * n * rates.k * ENTRIES_PER_NEIGHBOR * classes * steps
    solved = solver_choice(STORED_SOLVER, solving, memory, classes, budget, on_disk=True)
    disk = memory.disk + classes * memory.score
    why = (
        f"graph '{STORED_BUILDER}' and solver '{STORED_SOLVER}' with large arrays in files beside "
        f"the table, as memory is short: {format_bytes(disk)} of disk. `dlp propagate` does so by "
        "itself, and an interrupted one goes on with --resume."
    )
    return Plan(
        [*other.builders, builder], [*other.solvers, solved], other.transform_seconds,
        other.assemble_seconds, memory.held + memory.assemble, builder, solved, refiner,
        [why, _why_refiner(refiner, n, classes)], disk,
    )  # fmt: skip


def _why_refiner(refiner: Choice, n: int, classes: int) -> str:
    if refiner.fits and refiner.on_disk:
        return (
            f"refiner '{refiner.name}': its arrays of points and classes do not fit and lie in "
            f"files, {format_bytes(REFINER_PASSES * 4.0 * n * classes)} of which are read and "
            "written in all. If the disk is not quick, leave it out with --set refiner=none."
        )
    if refiner.fits:
        return f"refiner '{refiner.name}': {format_seconds(refiner.seconds)} for better labels."
    return (
        f"refiner '{refiner.name}' needs {format_bytes(refiner.memory)} for all classes at once, "
        "which does not fit: leave it out with --set refiner=none. With it large arrays go to "
        "files where graph and solver allow that."
    )


def _predict_in_memory(rates: Rates, points: int, classes: int, budget: float) -> Plan:
    k = min(rates.k, points - 1)
    entries = points * k * ENTRIES_PER_NEIGHBOR
    builders = [_builder(name, rates, points, k, budget) for name in rates.search if points > k]
    refiner, why_refiner = _refiner(rates, points, k, classes, budget)
    memory = estimate_memory(points, rates.dim, k, refines=refiner.fits)
    solvers = [
        _solver(name, rates, points, k, entries, classes, budget, refiner.fits) for name in SOLVERS
    ]
    builder, why_builder = _choose(builders, budget)
    if builder.fits and builder.name != (usual := registry.graph_for(points)):
        why_builder += (
            f" `dlp propagate` takes '{usual}' for so many points; --set graph={builder.name} "
            "takes this one."
        )
    solver, why_solver = _choose(solvers, budget)
    return Plan(
        builders, solvers, rates.transform * points, rates.edge * points * k,
        memory.held + memory.assemble, builder, solver, refiner,
        [why_builder, why_solver, why_refiner],
    )  # fmt: skip


def _builder(name: str, rates: Rates, points: int, k: int, budget: float) -> Choice:
    memory = estimate_memory(points, rates.dim, k, builder=name).search
    seconds = rates.search[name] * GROWTH[name](points)
    exact = bool(getattr(registry.graphs.get(name).factory, "exact", False))
    return Choice("graph", name, seconds, memory, exact, memory <= budget)


def _solver(
    name: str,
    rates: Rates,
    points: int,
    k: int,
    entries: float,
    classes: int,
    budget: float,
    refines: bool,
) -> Choice:
    solver = registry.solvers.build(name)
    memory = estimate_memory(points, rates.dim, k, solver, refines=refines)
    if name == "spectral":
        # one product with the graph, for the residual, and two with the basis
        steps = 1 + 2 * points * solver.rank / entries
        seconds = rates.spectral * entries + rates.step * entries * classes * steps
    else:
        seconds = rates.step * entries * classes * (solver.max_iterations + 1)
    exact = not solver.approximate
    return solver_choice(name, seconds, memory, classes, budget, exact)


def solver_choice(
    name: str,
    seconds: float,
    memory: Memory,
    classes: int,
    budget: float,
    exact: bool = True,
    on_disk: bool = False,
) -> Choice:
    """A solver that takes classes in chunks, as many as fit: at least one class must."""
    least = memory.held + memory.graph
    one, all_ = least + memory.column, least + classes * memory.column
    peak = min(all_, max(one, budget))
    return Choice("solver", name, seconds, peak, exact, one <= budget, on_disk)


def _refiner(rates: Rates, points: int, k: int, classes: int, budget: float) -> tuple[Choice, str]:
    name = registry.EMBEDDINGS["refiner"]
    memory = estimate_memory(points, rates.dim, k, refines=True)
    need, seconds = memory.refine + classes * memory.refine_column, rates.refine * points * classes
    refiner = Choice("refiner", name, seconds, need, True, need <= budget)
    return refiner, _why_refiner(refiner, points, classes)


def _choose(choices: list[Choice], budget: float) -> tuple[Choice, str]:
    """Of those that fit in memory the exact one if it is quick enough, else the fastest."""
    fitting = [c for c in choices if c.fits]
    if not fitting:
        least = min(choices, key=lambda c: c.memory)
        return least, (
            f"No {least.kind} component fits in {format_bytes(budget)}; '{least.name}' needs the "
            f"least, {format_bytes(least.memory)}. Use a machine with more memory, fewer points, "
            "or a smaller k."
        )
    fastest = min(fitting, key=lambda c: c.seconds)
    exact = min((c for c in fitting if c.exact), key=lambda c: c.seconds, default=fastest)
    if exact is fastest:
        return exact, f"{exact.kind} '{exact.name}': exact, and the fastest that fits in memory."
    if exact.seconds <= EXACT_SECONDS:
        return exact, (
            f"{exact.kind} '{exact.name}': exact, for {format_seconds(exact.seconds)}; "
            f"'{fastest.name}' takes {format_seconds(fastest.seconds)} and is approximate."
        )
    return fastest, (
        f"{fastest.kind} '{fastest.name}': the exact '{exact.name}' would take "
        f"{format_seconds(exact.seconds)}, this one {format_seconds(fastest.seconds)}, "
        "approximately; compare the two on a sample first."
    )
