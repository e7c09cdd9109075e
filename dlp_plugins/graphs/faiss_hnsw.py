"""FAISS's HNSW index: a navigable graph with layers, searched greedily."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import faiss
from pydantic import Field

from dlp_plugins.graphs._approximate import ApproximateBuilder, Found, Seed
from dlp_plugins.graphs._top_k import Array
from dlp_plugins.graphs.contract import K
from dlp_plugins.registry import graphs


@graphs.register("faiss_hnsw")
@dataclass(frozen=True)
class FaissHNSW(ApproximateBuilder):
    """FAISS HNSW index (Malkov & Yashunin 2020). At 50,000 points no faster than `faiss_flat`.

    It is built on one thread: on several threads the order in which points are added, and with it
    the result, would differ from run to run.
    Recall at 50,000 x 128, k = 50 (benchmarks/graph_speed.py): 0.996 on classes near 16 dimensions,
    0.899 on classes without structure inside.
    """

    k: K = 50
    links: Annotated[int, Field(ge=2, description="links per point (M)")] = 32
    build_width: Annotated[int, Field(ge=1, description="candidates kept while building")] = 80
    search_width: Annotated[int, Field(ge=1, description="candidates kept in a search")] = 96
    seed: Seed = 0

    def search(self, v: Array, k: int) -> Found:
        index = faiss.IndexHNSWFlat(v.shape[1], self.links, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.rng = faiss.RandomGenerator(self.seed)  # type: ignore[attr-defined]
        index.hnsw.efConstruction = self.build_width
        index.hnsw.efSearch = max(self.search_width, k)
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)
        try:
            index.add(v)
        finally:
            faiss.omp_set_num_threads(threads)
        similarities, indices = index.search(v, k)
        return Found(indices, similarities)
