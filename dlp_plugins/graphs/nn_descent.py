"""NN-descent: neighbours of neighbours, repeated, by pynndescent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dlp_plugins._threads import slices
from dlp_plugins.graphs._approximate import ApproximateBuilder, Found, Seed
from dlp_plugins.graphs._top_k import Array
from dlp_plugins.graphs.contract import K
from dlp_plugins.registry import graphs

BLOCK_ROWS = 4096  # points whose neighbours are gathered at once


@graphs.register("nn_descent", requires=("pynndescent",), extra="nn-descent")
@dataclass(frozen=True)
class NNDescent(ApproximateBuilder):
    """NN-descent (Dong et al. 2011) by pynndescent. Suits descriptors near few dimensions.

    The first call in a process compiles for ten seconds or more.
    Recall at 50,000 x 128, k = 50 (benchmarks/graph_speed.py): 0.999 on classes near 16 dimensions,
    0.909 on classes without structure inside.
    """

    k: K = 50
    seed: Seed = 0

    def search(self, v: Array, k: int) -> Found:
        from pynndescent import NNDescent as Index

        indices, _ = Index(v, metric="cosine", n_neighbors=k, random_state=self.seed).neighbor_graph
        # cosine distance is undefined at a zero vector; the inner product is not
        similarities = np.empty(indices.shape, np.float32)
        for rows in slices(len(v), BLOCK_ROWS):
            similarities[rows] = np.einsum("nd,nkd->nk", v[rows], v[indices[rows]])
        return Found(indices, similarities)
