"""How much memory a propagation takes, and how many classes at once a budget allows."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dlp_plugins.errors import DlpError
from dlp_plugins.propagate import Propagator
from dlp_plugins.units import format_bytes


class MemoryBudgetError(DlpError):
    """The budget does not hold the graph and one class."""


# Bytes of each directed edge i -> j of the neighbour lists. Upper estimates from the arrays that
# live at once, checked against measured peaks in tests/test_plan.py.
SEARCH_BYTES = 130  # exact search: candidates of both ends, grouped by point
ASSEMBLE_BYTES = 130  # sorting both directions by (row, column)
GRAPH_BYTES = 40  # two directions of int32 and float32, and float64 while components are counted


@dataclass(frozen=True)
class Memory:
    """Bytes that each phase of a propagation takes, besides the program itself (about 0.5 GB).

    search: descriptors [n, d], a copy of them, and the search for k neighbours.
    assemble: from neighbour lists to a graph.
    graph: the finished graph.
    column: what a solver holds for each class.
    """

    search: float
    assemble: float
    graph: float
    column: float

    @classmethod
    def of(cls, points: int, dim: int, k: int, vectors: int) -> Memory:
        """For n points of d numbers, k neighbours, and a solver's `vectors` a class."""
        edges = points * min(k, max(points - 1, 1))
        return cls(
            search=points * dim * 4 * 2 + edges * SEARCH_BYTES,
            assemble=edges * ASSEMBLE_BYTES,
            graph=edges * GRAPH_BYTES,
            column=points * 4 * vectors,
        )


@dataclass(frozen=True)
class Chunks:
    """How the classes are solved within a budget.

    width: classes solved at once.
    on_disk: scores wait in a scratch file, as they do not fit beside the graph.
    peak: bytes that the largest phase takes.
    """

    width: int
    on_disk: bool
    peak: float


def choose_chunks(
    propagator: Propagator, points: int, dim: int, num_classes: int, budget: float
) -> Chunks:
    """The widest chunks of classes that a budget of bytes holds, for n points of d numbers.

    A solver that needs all classes at once gets one chunk.

    Raises:
        MemoryBudgetError: not even one class fits; the message says how much would do.
    """
    memory = Memory.of(points, dim, propagator.graph.k, propagator.solver.vectors)
    columnwise = propagator.solver.columnwise
    least = 1 if columnwise else num_classes
    phases = {
        "finding neighbours": memory.search,
        "building the graph": memory.assemble,
        f"solving for {least} class{'es' if least > 1 else ''}": (
            memory.graph + least * memory.column
        ),
    }
    worst = max(phases, key=lambda name: phases[name])
    if phases[worst] > budget:
        raise MemoryBudgetError(
            f"{format_bytes(budget)} of memory is too little: {worst} takes about "
            f"{format_bytes(phases[worst])} for {points:,} points. Give more with --memory, take "
            "fewer neighbours with --set graph.k, or fewer points."
        )
    free = budget - memory.graph
    scores = points * num_classes * 4
    on_disk = scores > free / 2 and scores + num_classes * memory.column > free
    fit = int((free if on_disk else free - scores) // memory.column) if columnwise else num_classes
    number = math.ceil(num_classes / max(1, fit))
    width = math.ceil(num_classes / number)
    solving = memory.graph + width * memory.column + (0 if on_disk else scores)
    return Chunks(width, on_disk, max(memory.search, memory.assemble, solving))
