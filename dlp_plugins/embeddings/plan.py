"""How long and how much memory a propagation would take here, and which components to choose.

Each candidate is run at a small size; its time is scaled by how its cost grows. Memory follows from
the sizes of arrays (`budget.py`). Both are estimates: `docs/embeddings.md` says how good they are.
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
from dlp_plugins.embeddings.memory import Memory
from dlp_plugins.errors import DataError
from dlp_plugins.graph import Graph, assemble
from dlp_plugins.propagation import label_matrix
from dlp_plugins.units import format_bytes, format_seconds

# Graph builders and how the cost of each grows with the number of points, at its own defaults; the
# two of our own fitted to 20,000 and 50,000, and 20,000 and 1,000,000 points x 128. HNSW and
# NN-descent are left out: their caches and compilers make small runs say little of large ones.
GROWTH: dict[str, Callable[[float], float]] = {
    "exact": lambda n: n * (33_000 + n),  # what each point costs, and each pair
    "cells": lambda n: n * (5_000 + n / 512),  # its cells, and n / 512 centres to choose among
    "faiss_ivf": lambda n: n**1.5,  # root of n lists, a fixed number of them visited
}
SOLVERS = ("cg", "spectral")
# A wait that an exact answer is worth; beyond it the cheaper component is advised.
PATIENCE = 600.0

SEARCH_POINTS = 20_000
SOLVE_POINTS = 50_000
SOLVE_COLUMNS = 32
SOLVE_STEPS = 4
SPECTRAL_POINTS = 2_000
# Entries of a graph for each neighbour-list entry: 2 if no choice is mutual, 1 if all are. Measured
# 1.4 to 1.55 on clustered data, k = 30 to 50.
ENTRIES_PER_NEIGHBOR = 1.5


@dataclass(frozen=True)
class Constants:
    """Seconds measured on one machine, for descriptors of `dim` numbers and k neighbours.

    search: by builder, seconds over GROWTH at the size measured.
    edge: building the graph, per neighbour-list entry.
    step: one iteration of conjugate gradient, per graph entry and class.
    spectral: the eigenbasis of the spectral solver, per graph entry.
    """

    dim: int
    k: int
    search: dict[str, float]
    edge: float
    step: float
    spectral: float


@dataclass(frozen=True)
class Choice:
    """A component with what it would cost.

    memory: bytes at its peak; seconds: on this machine; exact: gives the true answer.
    """

    kind: str
    name: str
    seconds: float
    memory: float
    exact: bool
    fits: bool


@dataclass(frozen=True)
class Plan:
    """Candidates and the choice among them.

    assemble_seconds, assemble_memory: building the graph from neighbour lists.
    reasons: a sentence for each choice.
    """

    builders: list[Choice]
    solvers: list[Choice]
    assemble_seconds: float
    assemble_memory: float
    builder: Choice
    solver: Choice
    reasons: list[str]

    @property
    def seconds(self) -> float:
        """Of the chosen components, all phases; reading and writing files not counted."""
        return self.builder.seconds + self.assemble_seconds + self.solver.seconds

    @property
    def memory(self) -> float:
        """Bytes at the peak of the largest phase, besides the program itself."""
        return max(self.builder.memory, self.assemble_memory, self.solver.memory)


# -- measuring ----------------------------------------------------------------------------------


def measure(dim: int, k: int, progress: Callable[[str], None] = lambda what: None) -> Constants:
    """Run every candidate at a small size; a few seconds in all."""
    search = {}
    for name in candidates():
        progress(name)
        search[name] = _measure_search(name, dim, k)
    progress("cg")
    edge, step = _measure_solve(k)
    progress("spectral")
    return Constants(dim, k, search, edge, step, _measure_spectral(k))


def candidates() -> list[str]:
    """The builders that there is a law of growth for, and whose packages are installed."""
    known = registry.graphs.names()
    return [n for n in GROWTH if n in known and not registry.graphs.get(n).missing()]


def _measure_search(name: str, dim: int, k: int) -> float:
    builder = registry.graphs.build(name, k=k)
    points = _clustered(SEARCH_POINTS, dim)
    builder.neighbors(points[: SEARCH_POINTS // 5])  # threads, compilers and caches warm up
    return _seconds(lambda: builder.neighbors(points)) / GROWTH[name](SEARCH_POINTS)


def _measure_solve(k: int) -> tuple[float, float]:
    indices = torch.randint(SOLVE_POINTS, (SOLVE_POINTS, k), generator=_generator())
    weights = torch.rand(indices.shape, generator=_generator())
    edge = _seconds(lambda: assemble(indices, weights)) / indices.numel()
    graph = assemble(indices, weights)
    # As many steps as asked for: a random graph would let the solver stop early otherwise.
    cg = registry.solvers.build("cg", max_iterations=SOLVE_STEPS, tolerance=1e-30)
    labels = label_matrix(torch.arange(SOLVE_POINTS) % SOLVE_COLUMNS, SOLVE_COLUMNS)
    products = SOLVE_STEPS + 1  # and one for the residual at the end
    seconds = _seconds(lambda: cg.solve(cg.prepare(graph), labels))
    return edge, seconds / (products * graph.num_entries * SOLVE_COLUMNS)


def _measure_spectral(k: int) -> float:
    graph = _neighbor_graph(SPECTRAL_POINTS, k)
    solver = registry.solvers.build("spectral")
    return _seconds(lambda: solver.prepare(graph)) / graph.num_entries


def _neighbor_graph(points: int, k: int) -> Graph:
    neighbors = registry.graphs.build("exact", k=k).neighbors(_clustered(points, 16))
    return assemble(neighbors.indices, neighbors.similarities.clamp(min=0))


def _clustered(points: int, dim: int) -> torch.Tensor:
    """[n, d] unit vectors in clusters near few dimensions, as descriptors are."""
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


def load_constants(path: Path, dim: int, k: int) -> Constants:
    """Constants that `save_constants` wrote.

    Raises:
        DataError: not such a file, or measured for another dim or k.
    """
    try:
        constants = Constants(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"{path}: does not hold constants of `dlp plan`: {error}. Delete it to measure anew."
        ) from None
    if (constants.dim, constants.k) != (dim, k):
        raise DataError(
            f"{path}: measured for --dim {constants.dim} --k {constants.k}, not {dim} and {k}. "
            "Name another file to measure anew."
        )
    return constants


def save_constants(path: Path, constants: Constants) -> None:
    """Write constants as JSON."""
    path.write_text(json.dumps(asdict(constants), indent=2) + "\n", encoding="utf-8")


# -- predicting ---------------------------------------------------------------------------------


def predict(constants: Constants, points: int, classes: int, budget: float) -> Plan:
    """What each candidate would take for n points and c classes, and which to choose.

    Args:
        budget: bytes of memory to stay within.
    """
    k = min(constants.k, points - 1)
    entries = points * k * ENTRIES_PER_NEIGHBOR
    builders = [
        _builder(name, constants, points, k, budget) for name in constants.search if points > k
    ]
    solvers = [_solver(name, constants, points, k, entries, classes, budget) for name in SOLVERS]
    memory = Memory.of(points, constants.dim, k)
    builder, why_builder = _choose(builders, budget)
    solver, why_solver = _choose(solvers, budget)
    return Plan(
        builders, solvers, constants.edge * points * k, memory.assemble, builder, solver,
        [why_builder, why_solver],
    )  # fmt: skip


def _builder(name: str, constants: Constants, points: int, k: int, budget: float) -> Choice:
    memory = Memory.of(points, constants.dim, k, builder=name).search
    seconds = constants.search[name] * GROWTH[name](points)
    exact = bool(getattr(registry.graphs.get(name).factory, "exact", False))
    return Choice("graph", name, seconds, memory, exact, memory <= budget)


def _solver(
    name: str,
    constants: Constants,
    points: int,
    k: int,
    entries: float,
    classes: int,
    budget: float,
) -> Choice:
    solver = registry.solvers.build(name)
    memory = Memory.of(points, constants.dim, k, solver)
    one, all_ = memory.graph + memory.column, memory.graph + classes * memory.column
    if name == "spectral":
        # one product with the graph, for the residual, and two thin ones with the basis
        steps = 1 + 2 * points * solver.rank / entries
        seconds = constants.spectral * entries + constants.step * entries * classes * steps
    else:
        seconds = constants.step * entries * classes * (solver.max_iterations + 1)
    # classes go in chunks: anything from one class up will do
    return Choice(
        "solver", name, seconds, min(all_, max(one, budget)), not solver.approximate, one <= budget
    )


def _choose(choices: list[Choice], budget: float) -> tuple[Choice, str]:
    """Exact while one can wait for it, else the fastest; of those that fit in memory."""
    fitting = [c for c in choices if c.fits]
    if not fitting:
        least = min(choices, key=lambda c: c.memory)
        return least, (
            f"{least.kind} '{least.name}': none fits in {format_bytes(budget)}; this one needs the "
            f"least, {format_bytes(least.memory)}. Take a machine with more memory, fewer points, "
            "or a smaller k."
        )
    fastest = min(fitting, key=lambda c: c.seconds)
    exact = min((c for c in fitting if c.exact), key=lambda c: c.seconds, default=fastest)
    if exact is fastest:
        return exact, f"{exact.kind} '{exact.name}': exact, and the fastest that fits in memory."
    if exact.seconds <= PATIENCE:
        return exact, (
            f"{exact.kind} '{exact.name}': exact, for {format_seconds(exact.seconds)}; "
            f"'{fastest.name}' would take {format_seconds(fastest.seconds)} and approximate."
        )
    return fastest, (
        f"{fastest.kind} '{fastest.name}': the exact '{exact.name}' would take "
        f"{format_seconds(exact.seconds)}, this one {format_seconds(fastest.seconds)}, "
        "approximately; compare the two on a sample first."
    )
