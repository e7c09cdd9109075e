"""The graph with its rows shared among processes: what each holds, and products with all of it.

Shapes: m nodes; this process has p of them, one after the other, with k neighbours each, and h
nodes of other processes are their neighbours: the halo.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dlp_plugins._threads import length
from dlp_plugins.embeddings.assembly import find_components, join_components
from dlp_plugins.graph import ALL, Graph, both_directions, normalize_, row_sums
from dlp_plugins.processes.group import Processes
from dlp_plugins.processes.rows import RowExchange, owners
from dlp_plugins.solvers.contract import column_norms

if TYPE_CHECKING:
    import scipy.sparse as sp

COMPONENT_ROWS = 2**16  # rows that are looked at together for components


@dataclass(frozen=True)
class GraphRows:
    """This process's rows of Wn. Every method is called by all processes together.

    shares: the nodes of each process.
    own: [p, p + h]; the columns are this process's nodes, then the halo.
    halo: brings rows of the halo.
    num_entries: of all processes; each undirected edge counts twice.
    components: [m] int64, the number of each node's connected component, the same in all processes.
    """

    processes: Processes
    shares: Sequence[slice]
    own: Graph
    halo: RowExchange
    num_entries: int
    components: Tensor

    @property
    def mine(self) -> slice:
        return self.shares[self.processes.rank]

    def matmul(self, x: Tensor, rows: slice = ALL) -> Tensor:
        """Some of this process's rows of Wn x, of the x [p, c] of each process."""
        return self.own.matmul(torch.cat([x, self.halo.fetch(x)]), rows)

    def norms(self, x: Tensor) -> Tensor:
        """[c] Euclidean norms of the columns of a matrix of which each process has rows [p, c]."""
        return self.processes.summed(column_norms(x).double().square()).sqrt().to(x)


def _components(
    processes: Processes, shares: Sequence[slice], own: Graph, halo: RowExchange
) -> Tensor:
    """[m] int64: the number of each node's connected component, in every process.

    Each process finds the components of its own rows, and the pairs of those that edges to other
    processes join; from all the pairs every process finds the same components.
    """
    p, crow, columns = own.num_nodes, own.crow_indices.numpy(), own.col_indices.numpy()
    inside = columns < p
    kept = np.append(0, np.cumsum(inside))[crow]
    part = find_components(kept, columns[inside], COMPONENT_ROWS)
    counts = processes.each(int(part.max()) + 1)
    part += sum(counts[: processes.rank])
    outside = np.flatnonzero(~inside)
    row = np.searchsorted(crow, outside, side="right") - 1
    other = halo.fetch(torch.from_numpy(part)).numpy()[columns[outside] - p]
    pairs = np.unique(part[row] * sum(counts) + other)  # a pair as one number
    joined = np.concatenate(processes.each(pairs))
    component = join_components(np.arange(sum(counts)), *np.divmod(joined, sum(counts)))
    own_components = torch.from_numpy(component.astype(np.int64)[part])
    return processes.gather_shares(own_components, shares[-1].stop)


def assemble_rows(
    indices: np.ndarray, weights: np.ndarray, mutual: bool, processes: Processes, nodes: int
) -> GraphRows:
    """This process's rows of W = A + A^T, normalised, entry for entry those of `graph.assemble`.

    What other processes' nodes chose of this one's is sent here once, and so are the degrees of the
    halo.

    Args:
        indices: [p, k] int32 neighbours, counted over all processes; -1 for none.
        weights: [p, k] float32 affinities, 0 for no edge.
        nodes: m.
    """
    import scipy.sparse as sp

    shares = processes.shares(nodes)
    mine, p = shares[processes.rank], len(indices)
    keep = weights > 0
    counts = keep.sum(axis=1)
    target, values = indices[keep], weights[keep]
    a = sp.csr_matrix((values, target, np.append(0, np.cumsum(counts))), shape=(p, nodes))
    source = np.repeat(np.arange(mine.start, mine.stop, dtype=np.int32), counts)
    b = _transposed(source, target, values, shares, processes)
    del source, target, values, keep
    w = both_directions(a, b, mutual)
    del a, b
    columns, outside = w.indices, (w.indices < mine.start) | (w.indices >= mine.stop)
    halo = np.unique(columns[outside])
    columns[~outside] -= mine.start
    columns[outside] = p + np.searchsorted(halo, columns[outside])
    exchange = RowExchange.plan(processes, shares, torch.from_numpy(halo.astype(np.int64)))
    degree = torch.from_numpy(row_sums(w.indptr, w.data))
    every = torch.cat([degree, exchange.fetch(degree)])
    normalize_(w.indptr, columns, w.data, every.numpy())
    crow, col, wn = map(torch.from_numpy, (w.indptr, columns, w.data))
    own = Graph(crow, col, wn, degree, in_local_order=True)
    entries = int(processes.totals([own.num_entries])[0])
    components = _components(processes, shares, own, exchange)
    return GraphRows(processes, shares, own, exchange, entries, components)


def _transposed(
    source: np.ndarray, target: np.ndarray, values: np.ndarray, shares: Sequence[slice],
    processes: Processes,
) -> sp.csr_matrix:  # fmt: skip
    """This process's rows of A^T [p, m], from all processes' edges source[e] -> target[e]."""
    import scipy.sparse as sp

    owner = owners(shares, torch.from_numpy(target))
    sending = torch.bincount(owner, minlength=len(shares)).tolist()
    order = owner.argsort(stable=True).numpy()
    # one message: the bits of the values travel as integers
    edges = np.stack([target, source, values.view(np.int32)], axis=1)[order]
    del order, owner
    found = processes.exchange(torch.from_numpy(edges), sending, processes.swap(sending)).numpy()
    del edges
    mine = shares[processes.rank]
    rows, columns = found[:, 0] - np.int32(mine.start), np.ascontiguousarray(found[:, 1])
    values = np.ascontiguousarray(found[:, 2]).view(np.float32)
    made = sp.coo_matrix((values, (rows, columns)), shape=(length(mine), shares[-1].stop))
    made.has_canonical_format = True  # sources ascend, and none comes twice
    return made.tocsr()
