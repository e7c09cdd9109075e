"""What a propagation would cost whose rows several processes share (`sharded.py`)."""

from __future__ import annotations

from dlp_plugins import registry
from dlp_plugins.embeddings.memory import estimate_sharded_memory, halo_rows
from dlp_plugins.embeddings.plan import ENTRIES_PER_NEIGHBOR, GROWTH, Choice, Plan, Rates
from dlp_plugins.embeddings.sharded import DEFAULTS
from dlp_plugins.errors import MissingDependency
from dlp_plugins.solvers.chebyshev import Chebyshev
from dlp_plugins.units import format_bytes

# The search compares whole descriptors, read from the mapped file, not 8 bits or short vectors.
SLOWER_SEARCH = 1.7


def predict_shared(rates: Rates, points: int, classes: int, budget: float, processes: int) -> Plan:
    """Time and memory of each of so many processes, with the components that can be shared.

    The times are those of the work that is divided. What travels between machines comes on top; a
    reason says how much it is.

    Args:
        budget: bytes of memory that each may take.

    Raises:
        MissingDependency: the graph builder needs a package that is not installed.
    """
    graph, solver = DEFAULTS["graph"], Chebyshev(alpha=registry.EMBEDDINGS_ALPHA)
    if graph not in rates.search:
        raise MissingDependency(f"--processes: graph {graph} needs faiss, which is not installed.")
    k = min(rates.k, points - 1)
    memory = estimate_sharded_memory(points, rates.dim, k, solver, processes)
    edges = points * k / processes
    searching = SLOWER_SEARCH * rates.search[graph] * GROWTH[graph](points) / processes
    builder = Choice("graph", graph, searching, memory.search, False, memory.search <= budget)
    least = memory.held + memory.graph
    one, all_ = least + memory.column, least + classes * memory.column
    iterations = solver.usual_iterations
    seconds = rates.step * edges * ENTRIES_PER_NEIGHBOR * classes * (iterations + 1)
    solved = Choice(
        "solver", DEFAULTS["solver"], seconds, min(all_, max(one, budget)), True, one <= budget
    )
    refiner = Choice("refiner", DEFAULTS["refiner"], 0.0, 0.0, True, True)
    halo = halo_rows(points, k, processes)
    reasons = [
        f"For each of {processes:,} processes, which share the rows: torchrun --nproc-per-node ... "
        "-m dlp_cli propagate ... --shard-rows.",
        f"In each of about {iterations} iterations a process gets at most "
        f"{format_bytes(4.0 * halo * classes)} from the others, for all classes: less where "
        "neighbours lie in few cells (the summary states the halo). Over a network that takes "
        "time of its own.",
    ]
    if not (builder.fits and solved.fits):
        reasons.append(f"That does not fit in {format_bytes(budget)}: use more processes.")
    return Plan(
        [builder], [solved], rates.transform * points / processes, rates.edge * edges,
        memory.held + memory.assemble, builder, solved, refiner, reasons,
    )  # fmt: skip
