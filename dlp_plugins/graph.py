"""The graph that labels spread over: sparse, symmetric, non-negative, normalised.

Equations (Iscen et al., CVPR 2019, section 3.2): W = A + A^T with zero diagonal,
Wn = D^(-1/2) W D^(-1/2), D the row sums. A node without edges keeps a zero row.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the usual name for it
from torch import Tensor

from dlp_plugins._threads import parallel, slices
from dlp_plugins.errors import GraphError

if TYPE_CHECKING:
    import scipy.sparse as sp

# SciPy's sparse matrices take 0.2 s to load. They are imported where they are used, and graphs of
# so few entries do without them.
FEW_ENTRIES = 2**16
ALL = slice(None)
BLOCK_ROWS = 2**14  # rows of a matrix that one thread works on at once
MAX_INT32 = 2**31 - 1

with warnings.catch_warnings():  # torch warns once per process that its CSR tensors are in beta
    warnings.filterwarnings("ignore", message="Sparse", category=UserWarning)
    torch.eye(1).to_sparse_csr()


def read_host(x: Tensor) -> np.ndarray:
    """The values of a tensor on the host; on a GPU this waits for all work that was started.

    Graph assembly and solvers read values from the device here and nowhere else, so that a test can
    count these waits.
    """
    return x.detach().cpu().numpy()


@dataclass(frozen=True)
class Neighbors:
    """k nearest others of each of n points; a point is never its own neighbour.

    indices: [n, k] int32 or int64; -1 where fewer than k were found.
    similarities: [n, k] float32 inner products of the L2-normalised descriptors.
    order: [n] int64, all points so that near ones follow each other, if the search found such an
        order: a product with the graph then finds its rows in cache.
    """

    indices: Tensor
    similarities: Tensor
    order: Tensor | None = None

    @property
    def num_nodes(self) -> int:
        return self.indices.shape[0]


@dataclass(frozen=True)
class Graph:
    """A normalised affinity matrix Wn [n, n] in CSR form, on one device.

    crow_indices: [n + 1] int32, or int64 from 2^31 entries.
    col_indices: [nnz], the same type; within a row in ascending order.
    values: [nnz] float32, entries of Wn.
    degree: [n] float32, row sums D of the affinities W before normalisation.
    order: as `Neighbors.order`.
    in_local_order: linked nodes are near each other in memory as it is.
    """

    crow_indices: Tensor
    col_indices: Tensor
    values: Tensor
    degree: Tensor
    order: Tensor | None = None
    in_local_order: bool = False

    @property
    def num_nodes(self) -> int:
        return self.degree.shape[0]

    @property
    def num_entries(self) -> int:
        """Stored entries; each undirected edge counts twice."""
        return self.values.shape[0]

    @property
    def device(self) -> torch.device:
        return self.values.device

    @cached_property
    def matrix(self) -> Tensor:
        """Wn as a torch sparse CSR tensor."""
        return torch.sparse_csr_tensor(
            self.crow_indices,
            self.col_indices,
            self.values,
            (self.num_nodes, self.num_nodes),
            check_invariants=False,
        )

    def matmul(self, x: Tensor, rows: slice = ALL) -> Tensor:
        """Some rows of Wn x, by default all, for x [n, c] float32 on the graph's device."""
        if x.device.type != "cpu":
            return (self.matrix @ x)[rows]
        # A row of Wn x is a weighted sum of rows of x, which is what an embedding bag computes; its
        # CPU kernel is several times faster than the CSR product (docs/performance.md, "Solve").
        first, last, _ = rows.indices(self.num_nodes)
        begin = self.crow_indices[first : last + 1]
        entries = slice(int(begin[0]), int(begin[-1]))
        if entries.stop - entries.start > MAX_INT32 and last - first > 1:  # offsets are int32
            middle = (first + last) // 2
            halves = slice(first, middle), slice(middle, last)
            return torch.cat([self.matmul(x, half) for half in halves])
        columns = self.col_indices[entries]
        return F.embedding_bag(
            columns,
            x,
            (begin - begin[0]).to(columns.dtype),
            mode="sum",
            per_sample_weights=self.values[entries],
            include_last_offset=True,
        )

    def to_scipy(self) -> sp.csr_matrix:
        """Wn as a SciPy CSR matrix that shares the values (copies them from a GPU)."""
        import scipy.sparse as sp

        parts = (self.values, self.col_indices, self.crow_indices)
        return sp.csr_matrix(
            tuple(read_host(p) for p in parts), shape=(self.num_nodes, self.num_nodes)
        )

    @cached_property
    def components(self) -> Tensor:
        """[n] int64: the number of each node's connected component, from 0 (on the CPU)."""
        if self.num_entries <= FEW_ENTRIES:
            return self._components_of_few()
        import scipy.sparse as sp

        # Wn is symmetric, so its strong components are its components; weak ones would cost SciPy
        # a transpose.
        _, component = sp.csgraph.connected_components(self.to_scipy(), connection="strong")
        return torch.from_numpy(component.astype(np.int64))

    def _components_of_few(self) -> Tensor:
        """`components` by FastSV (Zhang, Azad and Hu, 2020), without SciPy.

        Every node has a parent in its component, with a number no larger than its own. In each
        round the node, its parent and their parents take the least grandparent among neighbours.
        """
        counts = self.crow_indices.diff().cpu().long()
        row = torch.arange(self.num_nodes).repeat_interleave(counts)
        col = self.col_indices.cpu().long()
        parent = grandparent = torch.arange(self.num_nodes)
        while True:
            least = grandparent[col]
            parent = parent.scatter_reduce(0, parent[row], least, "amin")
            parent = parent.scatter_reduce(0, row, least, "amin").minimum(grandparent)
            if torch.equal(parent[parent], grandparent):
                return torch.unique(parent, return_inverse=True)[1]
            grandparent = parent[parent]

    @cached_property
    def renumbered(self) -> tuple[Graph, Tensor]:
        """The graph with linked nodes near each other in memory; each new node's old number [n].

        A CPU then finds more of a product's rows in its cache. The order is the search's if it gave
        one, else reverse Cuthill-McKee, which takes as long as a few products. Columns within a row
        are not sorted. A graph in local order stays as it is.
        """
        if self.in_local_order:
            return self, torch.arange(self.num_nodes, device=self.device)
        import scipy.sparse as sp

        matrix = self.to_scipy()
        if self.order is None:
            order = sp.csgraph.reverse_cuthill_mckee(matrix, symmetric_mode=True)
        else:
            order = read_host(self.order)
        number = np.empty_like(order)
        number[order] = np.arange(len(order), dtype=order.dtype)
        matrix = matrix[order]
        crow, values = torch.from_numpy(matrix.indptr), torch.from_numpy(matrix.data)
        old = torch.from_numpy(order.astype(np.int64))
        graph = Graph(
            crow, torch.from_numpy(number[matrix.indices]), values, self.degree.cpu()[old],
            in_local_order=True,
        )  # fmt: skip
        return graph.to(self.device), old.to(self.device)

    def to(self, device: torch.device | str) -> Graph:
        """The same graph on another device."""
        return Graph(
            self.crow_indices.to(device),
            self.col_indices.to(device),
            self.values.to(device),
            self.degree.to(device),
            None if self.order is None else self.order.to(device),
            self.in_local_order,
        )

    @classmethod
    def from_affinity(cls, affinity: sp.spmatrix, device: torch.device | str = "cpu") -> Graph:
        """Normalise a symmetric, non-negative SciPy matrix W [n, n] of affinities.

        Raises:
            GraphError: not square, not finite, negative, or not symmetric.
        """
        import scipy.sparse as sp

        w = sp.csr_matrix(affinity, dtype=np.float32, copy=True)
        if w.shape[0] != w.shape[1]:
            raise GraphError(f"An affinity matrix must be square; this one is {w.shape}.")
        if not np.isfinite(w.data).all():
            raise GraphError("The affinity matrix holds NaN or infinity.")
        if w.nnz and w.data.min() < 0:
            raise GraphError(f"Affinities must not be negative; the least is {w.data.min():.3g}.")
        if w.nnz and abs(w - w.T).max() > 1e-5 * w.data.max():
            raise GraphError("The affinity matrix is not symmetric; take W + W^T.")
        w.setdiag(0)
        w.eliminate_zeros()
        w.sort_indices()
        rows = np.repeat(np.arange(w.shape[0]), np.diff(w.indptr))
        degree = np.bincount(rows, weights=w.data, minlength=w.shape[0])
        scale = _inverse_sqrt(torch.from_numpy(degree)).numpy()
        values = (w.data * scale[rows] * scale[w.indices]).astype(np.float32)
        index = _index_type(w.nnz)
        # copies: SciPy may give views of arrays that the caller changes later
        return cls(
            torch.tensor(w.indptr, dtype=index, device=device),
            torch.tensor(w.indices, dtype=index, device=device),
            torch.from_numpy(values).to(device),
            torch.from_numpy(degree.astype(np.float32)).to(device),
        )


def _index_type(entries: int) -> torch.dtype:
    """The type of the indices of a matrix with so many entries."""
    return torch.int32 if entries <= MAX_INT32 else torch.int64


def _inverse_sqrt(degree: Tensor) -> Tensor:
    """D^(-1/2), with 0 (not infinity) for a node without edges."""
    return torch.where(degree > 0, degree.rsqrt(), torch.zeros_like(degree))


def assemble(
    indices: Tensor, affinities: Tensor, mutual: bool = False, order: Tensor | None = None
) -> Graph:
    """Symmetrise and normalise: W = A + A^T, Wn = D^(-1/2) W D^(-1/2).

    Args:
        indices: [n, k] neighbours of each node, -1 for none.
        affinities: [n, k] float32 a_ij >= 0; zeros become no edge.
        mutual: keep an edge only if each end is among the other's neighbours.
        order: as `Neighbors.order`.

    Returns:
        The graph, on the device of `indices`.
    """
    few = 2 * indices.numel() <= FEW_ENTRIES
    make = _assemble_by_sort if few or indices.device.type != "cpu" else _assemble_by_counting
    return make(indices, affinities, mutual, order)


def _assemble_by_counting(
    indices: Tensor, affinities: Tensor, mutual: bool, order: Tensor | None = None
) -> Graph:
    """`assemble` with SciPy's sparse matrices on all threads, the fastest way on a CPU."""
    import scipy.sparse as sp

    n = len(indices)
    rows = np.arange(n)[:, None]
    cols = indices.numpy()
    keep = (cols >= 0) & (cols != rows) & (affinities.numpy() > 0)
    start = np.concatenate([[0], keep.sum(axis=1).cumsum()])
    weights = affinities.numpy()[keep].astype(np.float32)
    w = _symmetric(sp.csr_matrix((weights, cols[keep], start), shape=(n, n)), mutual)

    degree = row_sums(w.indptr, w.data)
    normalize_(w.indptr, w.indices, w.data, degree)
    crow, col, values = map(torch.from_numpy, (w.indptr, w.indices, w.data))
    return Graph(crow, col, values, torch.from_numpy(degree), order)


def row_sums(crow: np.ndarray, values: np.ndarray) -> np.ndarray:
    """[n] float32 sums of the rows of a CSR matrix, added in float64, on all threads."""

    def sums(rows: slice) -> np.ndarray:
        entries, row = _entries_of(crow, rows)
        return np.bincount(row, values[entries], minlength=rows.stop - rows.start)

    blocks = slices(len(crow) - 1, BLOCK_ROWS)
    return np.concatenate([*parallel(sums, blocks), []]).astype(np.float32)


def normalize_(
    crow: np.ndarray, columns: np.ndarray, values: np.ndarray, degree: np.ndarray
) -> None:
    """D^(-1/2) W D^(-1/2) in place of W, a CSR matrix, on all threads.

    degree: of each column, those of the rows first.
    """
    scale = _inverse_sqrt(torch.from_numpy(degree)).numpy()

    def normalize(rows: slice) -> None:
        entries, row = _entries_of(crow, rows)
        values[entries] *= scale[rows][row]
        values[entries] *= scale[columns[entries]]

    for _ in parallel(normalize, slices(len(crow) - 1, BLOCK_ROWS)):
        pass


def _entries_of(crow: np.ndarray, rows: slice) -> tuple[slice, np.ndarray]:
    """The entries of some rows of a CSR matrix, and the row of each, counted from the first."""
    start = crow[rows.start : rows.stop + 1]
    return slice(start[0], start[-1]), np.repeat(np.arange(len(start) - 1), np.diff(start))


def _symmetric(a: sp.csr_matrix, mutual: bool) -> sp.csr_matrix:
    """A + A^T, all of it or only the edges that both ends have chosen."""
    # SciPy transposes by a counting sort, which is faster than sorting n k keys.
    return both_directions(a, a.T.tocsr(), mutual)


def both_directions(a: sp.csr_matrix, b: sp.csr_matrix, mutual: bool) -> sp.csr_matrix:
    """A + A^T, or its mutual edges, of rows of A and the same rows of A^T, columns sorted there."""
    import scipy.sparse as sp

    def both_ways(rows: slice) -> sp.csr_matrix:
        one, other = a[rows], b[rows]
        one.sort_indices()
        return (one + other).multiply(one.minimum(other) > 0) if mutual else one + other

    return sp.vstack(list(parallel(both_ways, slices(a.shape[0], BLOCK_ROWS))), format="csr")


def _assemble_by_sort(
    indices: Tensor, affinities: Tensor, mutual: bool, order: Tensor | None = None
) -> Graph:
    """`assemble` in torch operations alone, for a GPU and for few entries."""
    n, k = indices.shape
    rows = torch.arange(n, device=indices.device).repeat_interleave(k)
    cols = indices.reshape(-1).long()
    weights = affinities.reshape(-1)
    keep = (cols >= 0) & (cols != rows) & (weights > 0)
    # Both directions of every edge, ordered by (row, column); equal keys are then neighbours. What
    # is no edge sorts to the end: no shape depends on values but those of the result.
    last = n * n
    key = torch.cat([rows * n + cols, cols * n + rows])
    key, ascending = torch.where(torch.cat([keep, keep]), key, last).sort()
    weights = torch.cat([weights, weights])[ascending]
    none = keep.new_zeros(min(1, len(key)))
    as_before = torch.cat([none, key[1:] == key[:-1]])
    edge = key < last
    if mutual:
        edge &= as_before | torch.cat([as_before[1:], none])
    first = edge & ~as_before
    entries = int(read_host(first.sum()))
    place = torch.where(edge, first.cumsum(0) - 1, entries)  # one more place for what is no edge
    values = torch.zeros(entries + 1, device=weights.device).index_add_(0, place, weights)
    key = key.new_zeros(entries + 1).scatter_(0, place, key)
    key, values = key[:entries], values[:entries]
    rows, cols = key // n, key % n
    # In float64, as on a CPU: in float32 the order of a GPU's atomic sums would show in the result.
    degree = torch.zeros(n, dtype=torch.float64, device=values.device)
    degree = degree.index_add_(0, rows, values.double()).float()
    scale = _inverse_sqrt(degree)
    crow = torch.searchsorted(rows, torch.arange(n + 1, device=rows.device))
    index = _index_type(entries)
    values = values * scale[rows] * scale[cols]
    return Graph(crow.to(index), cols.to(index), values, degree, order)
