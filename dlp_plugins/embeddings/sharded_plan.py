"""What a propagation would cost whose rows several processes share (`sharded.py`)."""

from __future__ import annotations

from dlp_plugins import registry
from dlp_plugins.embeddings.memory import estimate_sharded_memory, halo_rows
from dlp_plugins.embeddings.plan import (
    ENTRIES_PER_NEIGHBOR,
    GROWTH,
    Choice,
    Plan,
    Rates,
    solver_choice,
)
from dlp_plugins.embeddings.sharded import DEFAULTS
from dlp_plugins.errors import DataError
from dlp_plugins.solvers.chebyshev import Chebyshev
from dlp_plugins.units import format_bytes

# The search compares whole descriptors, read from the mapped file, not 8 bits or short vectors:
# 58 s in place of 34 on a busy machine (docs/scaling.md).
SLOWER_SEARCH = 1.7


def predict_shared(rates: Rates, points: int, classes: int, budget: float, processes: int) -> Plan:
    """Time and memory of each of so many processes, with the components that can be shared.

    The times are those of the work that is divided. What travels between machines comes on top; a
    reason says how much it is.

    Args:
        budget: bytes of memory that each may take.

    Raises:
        DataError: the rates, from a file, are not those of the graph builder.
    """
    graph, solver = DEFAULTS["graph"], Chebyshev(alpha=registry.EMBEDDINGS_ALPHA)
    if graph not in rates.search:
        raise DataError(f"--rates: the file has no speed of graph {graph}. Delete it to measure.")
    k = min(rates.k, points - 1)
    memory = estimate_sharded_memory(points, rates.dim, k, solver, processes)
    edges = points * k / processes
    searching = SLOWER_SEARCH * rates.search[graph] * GROWTH[graph](points) / processes
    assembling = memory.held + memory.assemble
    most = max(memory.search, assembling)
    builder = Choice("graph", graph, searching, memory.search, False, most <= budget)
    iterations = solver.usual_iterations
    seconds = rates.step * edges * ENTRIES_PER_NEIGHBOR * classes * (iterations + 1)
    solved = solver_choice(DEFAULTS["solver"], seconds, memory, classes, budget)
    refiner = Choice("refiner", DEFAULTS["refiner"], 0.0, 0.0, True, True)
    halo = halo_rows(points, k, processes)
    reasons = [
        f"For each of {processes:,} processes that share the rows, each on a machine like this "
        "one: `dlp propagate ... --shard-rows`, started by torchrun. Together on one machine they "
        "are no quicker than it, and share its memory.",
        f"In each of about {iterations} iterations a process gets at most "
        f"{format_bytes(4.0 * halo * classes)} from the others, for all classes: less where "
        "neighbours lie in few cells (the summary states the halo). Over a network that takes "
        "time of its own.",
    ]
    if not (builder.fits and solved.fits):
        reasons.append(f"That does not fit in {format_bytes(budget)}: use more processes.")
    return Plan(
        [builder], [solved], rates.transform * points / processes, rates.edge * edges,
        assembling, builder, solved, refiner, reasons,
    )  # fmt: skip
