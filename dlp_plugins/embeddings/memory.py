"""How much memory a propagation takes, and how many classes fit a budget at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from dlp_plugins.errors import DlpError
from dlp_plugins.graphs._cells_cpu import MAX_GROUP_POINTS, MIN_GROUPS
from dlp_plugins.graphs._exact_cpu import ALL_PAIRS_ENTRIES
from dlp_plugins.solvers.contract import Solver
from dlp_plugins.units import format_bytes


class MemoryBudgetError(DlpError):
    """The budget does not hold the graph and one class."""


# Bytes per entry of the neighbour lists. Upper estimates from the arrays that exist at the same
# time, checked against measured peaks in tests/embeddings/test_plan.py.
SEARCH_BYTES = {
    "exact": 190,  # candidates of both ends, grouped by point
    "cells": 65,  # the lists themselves, and candidates of the groups that are searched
    "faiss_flat": 60,  # int64 indices and similarities, and their narrower copies
    "faiss_ivf": 60,
    "faiss_hnsw": 70,  # the same, and the links
}
CELLS_BYTES = 400  # per point in `cells`: the cells it probes, sorted both ways
# Arrays [n, c] of a refiner: probabilities, and in the graph's order these, the next ones, the
# discriminant's scores, and the logarithms of the logistic regression's probabilities.
REFINER_ARRAYS = 5
INDEX_ARRAYS = 3  # arrays [n, c] at the end: scores, probabilities, the bytes that are written
# Per thread of the exact search: a block of similarities, a copy of it, and its order.
SCRATCH_BYTES = ALL_PAIRS_ENTRIES * (4 + 4 + 8)
ASSEMBLE_BYTES = 90  # the list and its transpose, their sum
# Where large arrays lie in files, bytes of memory per point: those of its cells and their order;
# its numbers as a node, its label, certainty, component and the like.
STORED_CELLS_BYTES, NODE_BYTES = 160, 120
GROUP_BYTES_PER_NEIGHBOR = 120  # of a point that one thread searches for, candidates in two forms
LEAST_BLOCK_ROWS = 2**14  # rows of the graph that are assembled at once, at least
MAPPED_GRAPH_BYTES = 12  # 1.5 entries for each neighbour, int32 and float32
STORED_REFINER_ARRAYS = 4  # the graph is in its order as it is
LIST_BYTES = 8  # of an entry of the finished neighbour lists: int32 and float32
# Where processes share the rows, the centroids of cells are found on this part of the points, or
# on a process's share of them if that is less: up to eight processes find the same cells.
SAMPLE_PART = 8
GRAPH_BYTES = 40  # two directions of int32 and float32, and float64 while components are counted


@dataclass(frozen=True)
class Memory:
    """Bytes that each phase of a propagation takes, besides the program itself (about 0.5 GB).

    search: descriptors [n, d], a copy of them, and the search for k neighbours.
    assemble: from neighbour lists to a graph.
    graph: the finished graph, and what a solver prepares beside it.
    column: what a solver holds for each class.
    held: descriptors that a refiner needs, in memory while graph and scores are made.
    refine: descriptors and graph, each in two orders, for a refiner; 0 without one.
    refine_column: what a refiner holds for each class.
    indexing: the last two are those of an index, without a refiner.
    disk: bytes of files at their peak, where large arrays lie in files; besides the scores.
    score: bytes of files for each class, at most; 0 where scores do not lie in files of their own.
    """

    search: float
    assemble: float
    graph: float
    column: float
    held: float = 0.0
    refine: float = 0.0
    refine_column: float = 0.0
    indexing: bool = False
    disk: float = 0.0
    score: float = 0.0

    @property
    def unrefined(self) -> Memory:
        """Without a refiner or an index."""
        return replace(self, held=0.0, refine=0.0, refine_column=0.0)

    def with_index(self, points: int, dim: int, k: int) -> Memory:
        """With what an index keeps until the end: descriptors, neighbour lists, probabilities."""
        lists = points * k * LIST_BYTES
        held = max(self.held, points * dim * 4) + lists
        if self.refine:  # a refiner holds more than writing the index does
            return replace(self, held=held, refine=self.refine + lists)
        return replace(
            self, held=held, refine=2 * held, refine_column=4 * points * INDEX_ARRAYS, indexing=True
        )


def estimate_memory(
    points: int,
    dim: int,
    k: int,
    solver: Solver | None = None,
    builder: str = "exact",
    refines: bool = False,
    estimates: bool = False,
) -> Memory:
    """For n points of d numbers and k neighbours.

    Args:
        solver: without one, what it would take counts as nothing.
        builder: a graph builder's name; one that is not known counts as the exact one.
        refines: a refiner follows the solve.
        estimates: class shares are estimated, so that scores stay in memory beside the refiner.
    """
    edges = points * min(k, max(points - 1, 1))
    scratch = min(SCRATCH_BYTES, 16 * points**2) * torch.get_num_threads()
    return Memory(
        search=points * dim * 4 * 2
        + edges * SEARCH_BYTES.get(builder, SEARCH_BYTES["exact"])
        + (scratch if builder == "exact" else 0)
        + (CELLS_BYTES * points if builder == "cells" else 0),
        assemble=edges * ASSEMBLE_BYTES,
        graph=edges * GRAPH_BYTES
        # two entries for each neighbour at most
        + (solver.prepared_bytes(points, 2 * edges) if solver else 0),
        column=points * 4 * solver.vectors if solver else 0,
        held=points * dim * 4 if refines else 0,
        refine=2 * (points * dim * 4 + edges * GRAPH_BYTES) if refines else 0,
        refine_column=points * 4 * (REFINER_ARRAYS + estimates) if refines else 0,
    )


def estimate_stored_memory(
    points: int,
    dim: int,
    k: int,
    solver: Solver | None = None,
    refines: bool = False,
    by_blocks: bool = True,
) -> Memory:
    """For the same with `cells` and large arrays in files (`stored.py`).

    The graph's files count as memory: each product reads all of them.

    Args:
        by_blocks: the refiner works by blocks, so that its arrays may lie in files.
    """
    edges = points * min(k, max(points - 1, 1))
    group = min(MAX_GROUP_POINTS, points / MIN_GROUPS) * GROUP_BYTES_PER_NEIGHBOR * (k + 1)
    rows, nodes = points * dim * 4, NODE_BYTES * points
    lists, graph = edges * LIST_BYTES, edges * MAPPED_GRAPH_BYTES
    searching = points * (STORED_CELLS_BYTES + 2 * dim)  # and two copies of the short vectors
    refining = rows + graph + nodes if refines else 0
    return Memory(
        search=max(searching, torch.get_num_threads() * group + nodes),
        assemble=min(edges, LEAST_BLOCK_ROWS * k) * ASSEMBLE_BYTES,
        graph=graph,
        column=points * 4 * solver.vectors if solver else 0,
        held=nodes,
        refine=refining,
        refine_column=0 if by_blocks or not refines else points * 4 * REFINER_ARRAYS,
        # rows in two orders; the lists, the affinities and the graph, and rows for a refiner
        disk=points * STORED_CELLS_BYTES
        + max(rows + points * dim + max(rows, lists), 1.5 * lists + graph + rows * refines),
        score=4 * points * (1 + STORED_REFINER_ARRAYS * refines),
    )


def halo_rows(points: int, k: int, processes: int) -> int:
    """Points elsewhere that one process's own are linked to, at most."""
    rows = math.ceil(points / processes)
    return min(points - rows, rows * k)


def estimate_sharded_memory(
    points: int, dim: int, k: int, solver: Solver, processes: int
) -> Memory:
    """For one of so many processes that share the rows of the graph (`sharded.py`)."""
    rows = math.ceil(points / processes)
    edges, nodes = rows * min(k, max(points - 1, 1)), NODE_BYTES * points
    group = min(MAX_GROUP_POINTS, rows / MIN_GROUPS)
    # candidates of each group, its descriptors and as many others, twice
    searching = torch.get_num_threads() * group * (GROUP_BYTES_PER_NEIGHBOR * (k + 1) + 16 * dim)
    sample = min(rows, points / SAMPLE_PART) * dim * 8  # with FAISS's copy, in the first process
    return Memory(
        search=nodes + max(sample, searching + edges * LIST_BYTES),
        assemble=edges * ASSEMBLE_BYTES,
        graph=edges * GRAPH_BYTES,
        # and scores of the halo: as they are sent, as they arrive and beside the own ones
        column=4 * (rows * (solver.vectors + 1) + 3 * halo_rows(points, k, processes)),
        held=nodes,
    )


def refiner_fits(stored: Memory, points: int, num_classes: int, budget: float) -> bool:
    """Whether a refiner's arrays [n, c] fit in memory, where the others lie in files."""
    return stored.refine + 4.0 * points * num_classes * STORED_REFINER_ARRAYS <= budget


@dataclass(frozen=True)
class ClassChunks:
    """How the classes are solved within a budget.

    width: classes solved at once.
    on_disk: scores are kept in a scratch file, as they do not fit beside the graph.
    peak: bytes that the largest phase takes.
    """

    width: int
    on_disk: bool
    peak: float


def choose_chunks(
    memory: Memory,
    points: int,
    num_classes: int,
    budget: float,
    columnwise: bool = True,
    processes: int = 1,
) -> ClassChunks:
    """The widest chunks of classes that fit a budget of bytes.

    A refiner takes all classes at once, chunks or not.

    Args:
        columnwise: the solver can solve a class without the others; if not, there is one chunk.
        processes: so many share the rows; memory and budget are one's, and points all.

    Raises:
        MemoryBudgetError: not even one class fits, or not all for the refiner; the message states
            how much would, and whether a propagation without the refiner fits.
    """
    least = 1 if columnwise else num_classes
    phases = _phases(memory, num_classes, least)
    worst = max(phases, key=lambda name: phases[name])
    if phases[worst] > budget:
        without = max(_phases(memory.unrefined, num_classes, least).values())
        what = "the index" if memory.indexing else "the refiner"
        how = "--save-index" if memory.indexing else "--set refiner=none"
        advice = (
            f"leave {what} out ({how}), which takes {format_bytes(without)}."
            if without <= budget
            else "use fewer neighbours (--set graph.k), another solver, or fewer points."
            if processes == 1
            else "use fewer neighbours (--set graph.k), or more processes."
        )
        each = "" if processes == 1 else " in each process"
        raise MemoryBudgetError(
            f"{format_bytes(budget)} of memory is too little: {worst} takes about "
            f"{format_bytes(phases[worst])}{each} for {points:,} points. Allow more with --memory, "
            f"or {advice}"
        )
    refining = memory.refine + num_classes * memory.refine_column
    free = budget - memory.graph - memory.held
    scores = 0 if memory.score else math.ceil(points / processes) * num_classes * 4
    on_disk = scores > free / 2 and scores + num_classes * memory.column > free
    fit = int((free if on_disk else free - scores) // memory.column) if columnwise else num_classes
    number = math.ceil(num_classes / max(1, fit))
    width = math.ceil(num_classes / number)
    solving = memory.held + memory.graph + width * memory.column + (0 if on_disk else scores)
    assembling = memory.held + memory.assemble
    return ClassChunks(width, on_disk, max(memory.search, assembling, solving, refining))


def check_all_at_once(chunks: ClassChunks, num_classes: int, budget: float) -> None:
    """Raise MemoryBudgetError unless the scores of all classes fit, as leaving labels out needs."""
    if chunks.on_disk or chunks.width < num_classes:
        raise MemoryBudgetError(
            f"{format_bytes(budget)} of memory is too little: all {num_classes:,} classes are "
            "solved at once here. Allow more with --memory, or use fewer neighbours "
            "(--set graph.k)."
        )


def _phases(memory: Memory, num_classes: int, least: int) -> dict[str, float]:
    """Bytes of each phase, with `least` classes solved at once."""
    phases = {
        "finding neighbours": memory.search,
        "building the graph": memory.held + memory.assemble,
        f"solving for {least} class{'es' if least > 1 else ''}": (
            memory.held + memory.graph + least * memory.column
        ),
    }
    if memory.refine:
        what = "keeping an index of" if memory.indexing else "refining"
        phases[f"{what} {num_classes:,} classes at once"] = (
            memory.refine + num_classes * memory.refine_column
        )
    return phases
