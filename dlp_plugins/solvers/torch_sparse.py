"""Conjugate gradient through the torch-sparse package's kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dlp_plugins.graph import ALL, Graph
from dlp_plugins.registry import solvers
from dlp_plugins.solvers.cg import ConjugateGradient


@solvers.register("torch_sparse", requires=("torch_sparse", "torch_scatter"), extra="torch-sparse")
@dataclass(frozen=True)
class TorchSparse(ConjugateGradient):
    """As `cg`, with products by `torch_sparse.matmul` (Fey and Lenssen's package), on CPU and GPU.

    Its indices are int64, which take twice the memory, and on a CPU its product is slower than that
    of `cg` (docs/performance.md). For those who use the package already.
    """

    def prepare(self, graph: Graph) -> Any:
        return _SparseMatrix(graph)

    def prepared_bytes(self, nodes: int, entries: int) -> float:
        return 8.0 * (nodes + 2 * entries)  # int64 indices of rows and columns


class _SparseMatrix:
    def __init__(self, graph: Graph) -> None:
        import torch_sparse

        self._graph = graph
        self._matmul = torch_sparse.matmul
        self._matrix = torch_sparse.SparseTensor(
            rowptr=graph.crow_indices.long(),
            col=graph.col_indices.long(),
            value=graph.values,
            sparse_sizes=(graph.num_nodes, graph.num_nodes),
            is_sorted=True,
            trust_data=True,
        )

    @property
    def components(self) -> Tensor:
        return self._graph.components

    def matmul(self, x: Tensor, rows: slice = ALL) -> Tensor:
        matrix = self._matrix if rows == ALL else self._matrix[rows]
        return self._matmul(matrix, x, reduce="sum")
