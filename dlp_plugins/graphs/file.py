"""Neighbours from a file: found before, or by another library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from dlp_plugins.errors import DataError, ParameterError
from dlp_plugins.graph import Neighbors
from dlp_plugins.graphs._list_file import Holds, Lists, read_lists, to_cosines
from dlp_plugins.graphs.contract import GraphBuilder, K
from dlp_plugins.registry import graphs


@graphs.register("file")
@dataclass(frozen=True)
class FileGraph(GraphBuilder):
    """Neighbour lists of a file, in place of a search: `dlp graph build`, or another library's.

    Takes `scipy.sparse.save_npz` of a matrix [n, n], or .npz with arrays `indices` and `distances`
    or `similarities` [n, k]. The points are those of the embeddings, in their order.
    """

    path: Annotated[str, Field(description=".npz of neighbour lists")]
    holds: Annotated[
        Holds, Field(description="what its values are; distance: Euclidean, of unit vectors")
    ] = "similarity"
    k: K = 50
    merges_duplicates = False

    def neighbors(self, descriptors: Tensor) -> Neighbors:
        lists = read_lists(Path(self.path), self.holds)
        return _neighbors(lists, self.k, descriptors, self.path)


@dataclass(frozen=True)
class MatrixGraph(GraphBuilder):
    """The same of a matrix in memory, for Python: `GraphLabelPropagation(graph=MatrixGraph(w))`.

    matrix: [n, n], sparse as SciPy's, such as what `sklearn.neighbors.kneighbors_graph` returns.
    """

    matrix: Any
    holds: Holds = "similarity"
    k: int = 50
    merges_duplicates = False

    def __post_init__(self) -> None:
        if self.holds not in get_args(Holds):
            raise ParameterError(
                f"holds must be one of {', '.join(get_args(Holds))}; found {self.holds!r}."
            )
        if not hasattr(self.matrix, "tocsr"):
            raise ParameterError(
                f"matrix must be sparse, as SciPy's; found {type(self.matrix).__name__}. "
                "scipy.sparse.csr_matrix(matrix) makes it so."
            )

    def neighbors(self, descriptors: Tensor) -> Neighbors:
        m = self.matrix.tocsr()
        values = to_cosines(m.data.astype(np.float32), self.holds)
        lists = Lists(m.indptr.astype(np.int64), m.indices.astype(np.int32), values, {})
        return _neighbors(lists, self.k, descriptors, "The matrix")


def _neighbors(lists: Lists, k: int, descriptors: Tensor, where: str) -> Neighbors:
    if lists.num_points != len(descriptors):
        raise DataError(
            f"{where} has the neighbours of {lists.num_points:,} points; there are "
            f"{len(descriptors):,} embeddings. Both must be of the same points."
        )
    indices, values = (torch.from_numpy(x) for x in lists.padded(k))
    return Neighbors(indices.to(descriptors.device), values.to(descriptors.device))
