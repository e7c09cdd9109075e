"""A propagation whose large arrays lie in mapped files, stage by stage, so that it can go on.

Stages, each a folder of the work folder: `points` (rows as the transform gives them), `cells` (the
same side by side with those of their cell), `lists` (each one's neighbours), `graph`, `scores-A-B`
(classes A to B). Files are removed once no later stage needs them. Nodes are numbered in the order
of their cells: what a product with the graph reads is then near in memory and on the disk.

Shapes: n points, m of them distinct, d numbers each, k neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlp_plugins._threads import parallel, slices
from dlp_plugins.embeddings.assembly import MappedGraph, assemble_mapped
from dlp_plugins.embeddings.built import BuiltGraph, transform
from dlp_plugins.embeddings.clock import Clock
from dlp_plugins.embeddings.features import EmbeddingFile
from dlp_plugins.embeddings.memory import ASSEMBLE_BYTES, LEAST_BLOCK_ROWS
from dlp_plugins.embeddings.work import Finished, Stage, Work
from dlp_plugins.graph import Neighbors
from dlp_plugins.graphs import _cells_cpu
from dlp_plugins.graphs._cells_cpu import CellLists
from dlp_plugins.graphs._compared import Compared, Whole
from dlp_plugins.graphs._eight_bits import Rounded
from dlp_plugins.graphs._upper_bound import ShortVectors
from dlp_plugins.graphs.cells import Cells
from dlp_plugins.graphs.contract import clip_k, drop_self
from dlp_plugins.propagation import Propagator
from dlp_plugins.propagation.duplicates import Distinct, find_distinct
from dlp_plugins.refiners.none import NoRefiner
from dlp_plugins.solvers.contract import Solution, Solver

COMPARED: dict[str, Any] = {kind.__name__: kind for kind in (ShortVectors, Rounded)}
ARRAYS_COMPARED = {field.name for kind in COMPARED.values() for field in fields(kind)}
MOVED_ROWS = 2**16  # rows that are moved at once
ASSEMBLE_SHARE = 0.25  # of the budget, for a block of the graph's rows


@dataclass(frozen=True)
class StoredPropagation:
    """Builds the graph of a file's embeddings in a work folder and keeps the scores there.

    budget: bytes of memory to stay within.
    refiner_in_memory: the arrays [n, c] of a refiner fit there.
    """

    work: Work
    source: EmbeddingFile
    budget: float
    refiner_in_memory: bool = True

    # -- the graph ------------------------------------------------------------------------------

    def build(self, propagator: Propagator, load: object, clock: Clock) -> BuiltGraph:
        """The graph from its files, made now or before."""
        found = self.work.finished("graph")
        refines = not isinstance(propagator.refiner, NoRefiner)
        if found is None:
            lists = self._lists(propagator, clock)
            searched = {"probed", "start", *ARRAYS_COMPARED, *([] if refines else ["v"])}
            self.work.drop("cells", *searched)
            with clock.phase("graph", len(lists.array("indices"))) as tick:
                self._assemble(propagator, lists, tick)
            found = self.work.finished("graph")
            assert found is not None
        self.work.remove("points", "lists", *([] if refines else ["cells"]))
        cells = self.work.finished("cells") if refines else None
        total = torch.from_numpy(found.array("total")) if "total" in found.arrays else None
        f = None if cells is None else torch.from_numpy(cells.array("v"))
        distinct = Distinct(*(torch.from_numpy(found.array(x)) for x in ("points", "group")))
        facts = found.facts
        return BuiltGraph(
            MappedGraph.of(found), distinct, f, None, total, facts["note"], facts["zero_vectors"]
        )

    def _points(self, propagator: Propagator, clock: Clock) -> Finished:
        """`rows` [n, d], of which the first m are F; `points` [m], `group` [n], `total`."""
        if found := self.work.finished("points"):
            return found
        n = self.source.points
        with self.work.stage("points") as stage:
            rows = stage.array("rows", np.float32, (n, self.source.dim))
            x = torch.from_numpy(rows)
            with clock.phase("read", n) as tick:
                self.source.load(tick, x)
                zero_vectors = n - int(x.any(dim=1).sum())
                distinct = find_distinct(x, propagator.graph.merges_duplicates)
                m = len(distinct.points)
                if m < n:
                    for part in slices(m, MOVED_ROWS):  # a point never moves up
                        x[part] = x[distinct.points[part]]
            note, total = transform(propagator, x[:m], clock)
            stage.array("points", np.int64, (m,))[:] = distinct.points.numpy()
            group = np.arange(n) if distinct.group is None else distinct.group.numpy()
            stage.array("group", np.int64, (n,))[:] = group
            if total is not None:
                stage.array("total", np.float64, tuple(total.shape))[:] = total.numpy()
            stage.facts = {"note": note, "zero_vectors": zero_vectors}
        return self._done("points")

    def _cells(self, propagator: Propagator, clock: Clock) -> Finished:
        """`v` [m, d], `probed` [m, probes], `order` [m], `start`, and what is compared."""
        if found := self.work.finished("cells"):
            return found
        points = self._points(propagator, clock)
        builder = propagator.graph
        assert isinstance(builder, Cells)
        with clock.phase("cells"), self.work.stage("cells") as stage:
            rows = points.array("rows")[: len(points.array("points"))]
            # as the search in memory, which finds the point itself, too
            k = clip_k(builder.k, rows) + 1
            settings = builder.size, builder.probes, builder.seed
            made = _cells_cpu.sort_into_cells(rows, k, *settings)
            v = stage.array("v", np.float32, rows.shape)
            for part in slices(len(rows), MOVED_ROWS):
                v[part] = rows[made.order[part]]
            for name in ("order", "probed", "start"):
                values = getattr(made, name)
                stage.array(name, values.dtype, values.shape)[:] = values
            _keep_compared(stage, made.compared, made.order)
        self.work.drop("points", "rows")
        return self._done("cells")

    def _lists(self, propagator: Propagator, clock: Clock) -> Finished:
        """`indices` [m, k] int32, nodes in the order of their cells, and `similarities`."""
        if found := self.work.finished("lists"):
            return found
        made = self._cells(propagator, clock)
        probed, v = made.array("probed"), made.array("v")
        cells = CellLists(
            v, np.arange(len(v), dtype=np.int32), _kept_compared(made, v),
            np.ascontiguousarray(probed[:, 0]), made.array("start"),
        )  # fmt: skip
        m = len(probed)
        k = clip_k(propagator.graph.k, v)
        with clock.phase("neighbours", m) as tick, self.work.stage("lists") as stage:
            indices = stage.array("indices", np.int32, (m, k))
            similarities = stage.array("similarities", np.float32, (m, k))

            def group(rows: slice) -> int:
                found = _cells_cpu.search_for(cells, rows, probed[rows], k + 1)
                nearest = torch.from_numpy(found.indices), torch.from_numpy(found.similarities)
                others = drop_self(*nearest, first=rows.start)
                indices[rows] = others.indices
                similarities[rows] = torch.where(others.indices < 0, 0.0, others.similarities)
                return rows.stop - rows.start

            done = 0
            for count in parallel(group, _cells_cpu.groups_of(m)):
                tick(done := done + count)
        return self._done("lists")

    def _assemble(
        self, propagator: Propagator, lists: Finished, tick: Callable[[int], None]
    ) -> None:
        """`crow`, `columns`, `values`, `degree`, `component`; `points` and `group` of the nodes."""
        points, cells = self._done("points"), self._done("cells")
        indices, similarities = lists.array("indices"), lists.array("similarities")
        m, k = indices.shape
        rows_at_once = int(ASSEMBLE_SHARE * self.budget / (ASSEMBLE_BYTES * max(1, k)))
        with self.work.stage("graph") as stage:
            weights = stage.array("weights", np.float32, (m, k))

            def some(rows: slice) -> Neighbors:
                return Neighbors(*(torch.from_numpy(x[rows]) for x in (indices, similarities)))

            blocks = list(slices(m, MOVED_ROWS))
            found = propagator.affinities_by_rows(blocks, some)
            for rows, part in zip(blocks, found, strict=True):
                weights[rows] = np.where(indices[rows] < 0, 0, part.numpy())
            assemble_mapped(
                indices,
                weights,
                propagator.mutual,
                stage,
                max(LEAST_BLOCK_ROWS, rows_at_once),
                tick,
            )
            stage.drop("weights")
            order = cells.array("order")
            node = np.empty(m, np.int64)
            node[order] = np.arange(m)
            stage.array("points", np.int64, (m,))[:] = points.array("points")[order]
            group = points.array("group")
            stage.array("group", np.int64, group.shape)[:] = node[group]
            if "total" in points.arrays:
                total = points.array("total")
                stage.array("total", np.float64, total.shape)[:] = total
            stage.facts = points.facts

    def _done(self, name: str) -> Finished:
        found = self.work.finished(name)
        assert found is not None
        return found

    # -- the scores -----------------------------------------------------------------------------

    def solve(self, first: int, last: int, solve: Callable[[], Solution]) -> Solution:
        """Scores in the order of the nodes, from their file, solved now or before."""
        name = f"scores-{first}-{last}"
        if self.work.finished(name) is None:
            solution = solve()
            with self.work.stage(name) as stage:
                for kept, values in (("scores", solution.scores), ("residual", solution.residual)):
                    held = values.numpy()
                    stage.array(kept, held.dtype, held.shape)[:] = held
                stage.facts = {
                    "iterations": solution.iterations,
                    "converged": solution.converged,
                    "limited_by_precision": solution.limited_by_precision,
                }
            del solution
        found = self._done(name)
        scores = torch.from_numpy(found.array("scores"))
        return Solution(scores, residual=torch.from_numpy(found.array("residual")), **found.facts)

    # -- a refiner's arrays ---------------------------------------------------------------------

    def empty(self, shape: Sequence[int], /, *, device: torch.device) -> Tensor:
        """An array in memory, or where that is short in a file without a name, gone in the end."""
        if self.refiner_in_memory:
            return torch.empty(tuple(shape), device=device)
        return torch.from_numpy(self.work.scratch(np.float32, tuple(shape)))


def _keep_compared(stage: Stage, compared: Compared, order: np.ndarray) -> None:
    """What the points are compared by, in another order; where it is the rows, nothing."""
    if isinstance(compared, Whole):
        return
    for field in fields(compared):  # type: ignore[arg-type]
        values = getattr(compared, field.name)
        if not isinstance(values, np.ndarray):
            stage.facts[field.name] = values
            continue
        kept = stage.array(field.name, values.dtype, values.shape)
        for part in slices(len(values), MOVED_ROWS):
            kept[part] = values[order[part]]
    stage.facts["compared"] = type(compared).__name__


def _kept_compared(made: Finished, v: np.ndarray) -> Compared:
    """As it was kept, of rows v."""
    kind = COMPARED.get(made.facts.get("compared", ""))
    if kind is None:
        return Whole(v)
    names = [field.name for field in fields(kind)]
    return kind(*(made.array(n) if n in made.arrays else made.facts[n] for n in names))


def what_files_need(propagator: Propagator) -> dict[str, bool]:
    """What its components must be to work on what lies in files, and whether they are."""
    solver = propagator.solver
    products = type(solver).prepare is Solver.prepare and solver.columnwise
    return {
        "--set graph=cells": isinstance(propagator.graph, Cells),
        "a solver such as cg": products and solver.max_nodes is None,
        "one process": propagator.processes.alone,
    }
