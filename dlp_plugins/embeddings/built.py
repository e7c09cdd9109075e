"""The graph of a file's points, for what is asked of it besides a table of pseudo-labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dlp_plugins.embeddings.chunked import Clock, Progress, silent
from dlp_plugins.embeddings.memory import check_all_at_once
from dlp_plugins.graph import Graph
from dlp_plugins.propagation import Propagator
from dlp_plugins.propagation.duplicates import Distinct, find_distinct
from dlp_plugins.propagation.propagator import full_precision

if TYPE_CHECKING:
    from dlp_plugins.embeddings.run import FilePropagation


@dataclass(frozen=True)
class Built:
    """A graph and what it was built from.

    f: F [m, d], the transformed descriptors of the distinct points.
    graph: of these.
    distinct: which of them each of n points is.
    """

    f: Tensor
    graph: Graph
    distinct: Distinct

    def node(self, point: int) -> int:
        return point if self.distinct.group is None else int(self.distinct.group[point])

    def point(self, node: int) -> int:
        """The first point of a node."""
        return int(self.distinct.points[node])

    @classmethod
    @full_precision()
    def of(
        cls,
        propagator: Propagator,
        descriptors: Tensor,
        clock: Clock | None = None,
        device: torch.device | str = "cpu",
    ) -> Built:
        """Of descriptors [n, d], checked."""
        clock = clock or Clock(silent)
        distinct = find_distinct(descriptors, propagator.graph.merges_duplicates)
        with clock.phase("transform"):
            f = propagator.apply_transform(distinct.select(descriptors).to(device))
        with clock.phase("neighbours"):
            neighbors = propagator.find_neighbors(f)
        with clock.phase("graph"):
            return cls(f, propagator.assemble_graph(neighbors), distinct)


def build_from_file(job: FilePropagation, progress: Progress) -> tuple[Built, Clock]:
    """Of the file of a propagation that is ready to run.

    Raises:
        MemoryBudgetError: the scores of all classes do not fit beside the graph.
    """
    check_all_at_once(job.chunks, len(job.given.classes), job.budget)
    clock = Clock(progress)
    with clock.phase("read", job.source.points) as tick:
        descriptors = job.source.load(tick)
    return Built.of(job.propagator, descriptors, clock, job.device), clock
