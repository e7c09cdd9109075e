"""Why a point has its label: the labelled points that make it, and how they reach it.

Shapes: n nodes, c classes. Z_ic is the sum over j of G_ij Y_jc; for plain labels Y_jc is 1 / n_c or
0. So the share of label j in a class is G_ij Y_jc over Z_ic: additive, and exact for Z.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dlp_plugins.graph import Graph, read_host
from dlp_plugins.propagation._inverse import influence
from dlp_plugins.registry import EMBEDDINGS_ALPHA

TINY = 1e-300


@dataclass(frozen=True)
class Shares:
    """What makes a node's score of a class.

    score: Z of the node in that class.
    nodes: [s] int64, nodes with a label of the class that reach it, the largest share first.
    shares: [s] float64, sum 1.
    """

    score: float
    nodes: np.ndarray
    shares: np.ndarray


def shares_of(graph: Graph, y: Tensor, node: int, alpha: float = EMBEDDINGS_ALPHA) -> Shares:
    """The shares in a node's score of a class whose column of the label matrix Y is y [n]."""
    column = influence(graph, [node], alpha=alpha)[:, 0].cpu().numpy()
    added = column * y.double().cpu().numpy()
    # what has not reached the node is 0, but for the rounding of a solve
    nodes = np.flatnonzero(added > 0)
    nodes = nodes[np.argsort(-added[nodes], kind="stable")]
    score = float(added[nodes].sum())
    return Shares(score, nodes, added[nodes] / score if score else added[nodes])


def paths_to(
    graph: Graph, node: int, sources: Sequence[int], alpha: float = EMBEDDINGS_ALPHA
) -> list[list[int]]:
    """From each source to the node the path that carries most: the nodes, both ends included.

    G is the sum over all paths of the products of their edges' alpha Wn_ij; this is the path of the
    largest product. An empty list where there is none.
    """
    import scipy.sparse as sp

    matrix = graph.to_scipy()
    carried = np.clip(alpha * matrix.data.astype(np.float64), TINY, 1 - 1e-12)  # length 0: no edge
    lengths = sp.csr_matrix((-np.log(carried), matrix.indices, matrix.indptr), shape=matrix.shape)
    _, before = sp.csgraph.dijkstra(lengths, indices=node, return_predecessors=True)
    return [_walk(before, node, int(source)) for source in sources]


def _walk(before: np.ndarray, node: int, source: int) -> list[int]:
    path = [source]
    while path[-1] != node:
        if before[path[-1]] < 0:
            return []
        path.append(int(before[path[-1]]))
    return path


def center_distances(descriptors: Tensor, probabilities: Tensor, node: int) -> np.ndarray:
    """[c] distances of a node's row of F [n, d] from the classes' centres.

    A centre is the mean of F weighted by a column of Q [n, c]; a class without mass has none, and
    infinity here.
    """
    mass = probabilities.sum(dim=0)
    centers = (probabilities.T @ descriptors) / mass.clamp(min=torch.finfo(mass.dtype).tiny)[
        :, None
    ]
    distance = (centers - descriptors[node]).norm(dim=1)
    return read_host(torch.where(mass > 0, distance, torch.inf))
