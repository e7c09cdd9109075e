"""The graph of neighbour lists in mapped files, by blocks of rows, into mapped files.

Shapes: m nodes, k neighbours. The result is that of `dlp_plugins.graph.assemble`, entry for entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dlp_plugins._threads import length, parallel, slices
from dlp_plugins.embeddings.work import Finished, Stage
from dlp_plugins.graph import MAX_INT32, Graph, both_directions, normalize_, row_sums

if TYPE_CHECKING:
    import scipy.sparse as sp

NEAREST = 2  # entries of a list that join most nodes into one component
SCANNED_ROWS = 2**16  # rows of lists that one thread looks through at once


@dataclass(frozen=True)
class MappedGraph(Graph):
    """A graph in mapped files, nodes in the order of the cells that they were searched in.

    component: [m] int64, as `Graph.components`.
    """

    in_local_order: bool = True
    component: Tensor | None = None

    @cached_property
    def components(self) -> Tensor:
        assert self.component is not None
        return self.component

    @classmethod
    def of(cls, files: Finished) -> MappedGraph:
        """Of what `assemble_mapped` has written."""
        crow = files.array("crow")
        # as torch and SciPy want it, the row starts are of the columns' type where that can be
        crow = crow.astype(np.int32) if crow[-1] <= MAX_INT32 else crow
        columns, values, degree, component = (
            torch.from_numpy(files.array(name))
            for name in ("columns", "values", "degree", "component")
        )
        return cls(torch.from_numpy(crow), columns, values, degree, component=component)


def assemble_mapped(
    indices: np.ndarray,
    weights: np.ndarray,
    mutual: bool,
    stage: Stage,
    rows_at_once: int,
    tick: Callable[[int], None] = lambda done: None,
) -> None:
    """Write W = A + A^T normalised: `crow` [m + 1] int64, `columns` int32, `values`, `degree`.

    A^T is not sorted as a whole: for each block of rows the lists are looked through for those who
    chose a node of the block. That is one comparison per entry and block.

    Args:
        indices: [m, k] int32 neighbours, -1 for none.
        weights: [m, k] float32 affinities, 0 for no edge.
        rows_at_once: rows of a block; it takes `memory.ASSEMBLE_BYTES` k for each.
        tick: called with the number of rows done.
    """
    m = len(indices)
    crow, degree = stage.array("crow", np.int64, (m + 1,)), np.zeros(m, np.float32)
    crow[0] = 0
    with stage.growing("columns", np.int32) as columns, stage.growing("values", np.float32) as add:
        for rows in slices(m, rows_at_once):
            w = both_directions(
                _chosen_by(indices, weights, rows), _who_chose(indices, weights, rows), mutual
            )
            crow[rows.start + 1 : rows.stop + 1] = crow[rows.start] + w.indptr[1:].astype(np.int64)
            degree[rows] = row_sums(w.indptr, w.data)
            columns(w.indices)
            add(w.data)
            tick(rows.stop)
    stage.array("degree", np.float32, (m,))[:] = degree
    normalize_(crow, stage.written("columns"), stage.written("values"), degree)
    component = find_components(crow, stage.written("columns"), rows_at_once)
    stage.array("component", np.int64, (m,))[:] = component


def _chosen_by(indices: np.ndarray, weights: np.ndarray, rows: slice) -> sp.csr_matrix:
    """Rows of A."""
    import scipy.sparse as sp

    columns, w = indices[rows], weights[rows]
    keep = w > 0
    start = np.append(0, np.cumsum(keep.sum(axis=1)))
    return sp.csr_matrix((w[keep], columns[keep], start), shape=(len(columns), len(indices)))


def _who_chose(indices: np.ndarray, weights: np.ndarray, rows: slice) -> sp.csr_matrix:
    """The same rows of A^T."""
    import scipy.sparse as sp

    def look(others: slice) -> tuple[np.ndarray, ...]:
        columns = indices[others].reshape(-1)
        # one comparison: without a sign what lies below the block is very large
        at = np.flatnonzero((columns - np.int32(rows.start)).view(np.uint32) < length(rows))
        w = weights[others].reshape(-1)[at]
        at, w = at[w > 0], w[w > 0]
        source = (at // indices.shape[1] + others.start).astype(np.int32)
        return columns[at] - np.int32(rows.start), source, w

    parts = list(parallel(look, slices(len(indices), SCANNED_ROWS)))
    target, source, w = (np.concatenate(part) for part in zip(*parts, strict=True))
    del parts
    found = sp.coo_matrix((w, (target, source)), shape=(length(rows), len(indices)))
    found.has_canonical_format = True  # sources ascend, and none comes twice
    return found.tocsr()


def find_components(crow: np.ndarray, columns: np.ndarray, rows_at_once: int) -> np.ndarray:
    """[m] int64: the number of each node's connected component, from 0.

    The first few entries of each row join most nodes (Sutton, Ben-Nun and Barak, "Afforest", 2018);
    then only rows outside the largest component are read, as every edge stands in both its rows.
    """
    m = len(crow) - 1
    component = np.arange(m)
    for rows in slices(m, rows_at_once):
        start, stop = crow[rows], crow[rows.start + 1 : rows.stop + 1]
        there = [np.flatnonzero(start + j < stop) for j in range(NEAREST)]
        entries = np.concatenate([start[t] + j for j, t in enumerate(there)])
        component = join_components(component, np.concatenate(there) + rows.start, columns[entries])
    largest = np.bincount(component).argmax()
    for left in _split(np.flatnonzero(component != largest), rows_at_once):
        counts = crow[left + 1] - crow[left]
        first = np.append(0, np.cumsum(counts)[:-1])
        at = np.repeat(crow[left] - first, counts) + np.arange(counts.sum())
        component = join_components(component, np.repeat(left, counts), columns[at])
    return component.astype(np.int64)


def _split(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (rows[part] for part in slices(len(rows), size))


def join_components(component: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """[m]: each node's component once the edges one[e]-other[e] are there as well."""
    import scipy.sparse as sp

    a, b = component[one], component[other]
    a, b = a[a != b], b[a != b]
    if not len(a):
        return component
    size = int(component.max()) + 1
    edges = sp.coo_matrix((np.ones(len(a), np.float32), (a, b)), shape=(size, size))
    return sp.csgraph.connected_components(edges, directed=False)[1][component]
