"""The graph of given points: read, transformed, searched, assembled; copies are one node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dlp_plugins.embeddings.clock import Clock, Progress, silent
from dlp_plugins.embeddings.memory import check_all_at_once
from dlp_plugins.graph import Graph, Neighbors
from dlp_plugins.propagation import Propagator
from dlp_plugins.propagation.duplicates import Distinct, find_distinct
from dlp_plugins.propagation.propagator import full_precision
from dlp_plugins.transforms.none import NoTransform

if TYPE_CHECKING:
    from dlp_plugins.embeddings.job import FilePropagation


Load = Callable[[Callable[[int], None]], Tensor]


@dataclass(frozen=True)
class BuiltGraph:
    """The graph of n points, and which of its nodes each point is.

    f: descriptors of the nodes, transformed; None where nothing needs them any more.
    lists: the neighbour lists, where they are kept. total: the transform's statistics.
    note, zero_vectors: as in `Outcome`.
    """

    graph: Graph
    distinct: Distinct
    f: Tensor | None
    lists: Neighbors | None
    total: Tensor | None
    note: str | None
    zero_vectors: int


@full_precision()
def build_graph(
    propagator: Propagator,
    load: Load,
    points: int,
    clock: Clock,
    device: torch.device | str = "cpu",
    *,
    prototypes: Tensor | None = None,
    keep: bool = False,
    keep_lists: bool = False,
) -> BuiltGraph:
    """The graph of n points, in memory.

    Args:
        load: as `propagate_chunked` takes it.
        prototypes: further nodes [c, d].
        keep: the descriptors, for what comes after.
        keep_lists: the neighbour lists.
    """
    with clock.phase("read", points) as tick:
        descriptors = load(tick)
        zero_vectors = points - int(descriptors.any(dim=1).sum())
        # with prototypes, copies are each other's neighbours in the paper
        merge = prototypes is None and propagator.graph.merges_duplicates
        distinct = find_distinct(descriptors, merge)
        descriptors = distinct.select(descriptors).to(device)
        if prototypes is not None:
            descriptors = torch.cat([descriptors, prototypes.to(device)])
    note, total = transform(propagator, descriptors, clock)
    with clock.phase("neighbours"):
        neighbors = propagator.find_neighbors(descriptors)
        f = descriptors if keep else None
        del descriptors
    with clock.phase("graph"):
        graph = propagator.assemble_graph(neighbors)
        lists = neighbors if keep_lists else None
        del neighbors
        int(graph.components.max())  # takes part of this phase's time
    return BuiltGraph(graph, distinct, f, lists, total, note, zero_vectors)


def transform(
    propagator: Propagator, descriptors: Tensor, clock: Clock
) -> tuple[str | None, Tensor | None]:
    """Transform unit rows [n, d] in place; the transform's note and its statistics."""
    if isinstance(propagator.transform, NoTransform):
        return None, None
    with clock.phase("transform"):
        _, total = propagator.fit_transform(descriptors, out=descriptors)
    return propagator.transform.note(total, descriptors.shape[1]), total


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
    def from_load(
        cls,
        propagator: Propagator,
        load: Load,
        points: int,
        clock: Clock,
        device: torch.device | str = "cpu",
    ) -> Built:
        """Of the n points that `load` returns; see `propagate_chunked`."""
        made = build_graph(propagator, load, points, clock, device, keep=True)
        assert made.f is not None
        return cls(made.f, made.graph, made.distinct)

    @classmethod
    def of(
        cls,
        propagator: Propagator,
        descriptors: Tensor,
        device: torch.device | str = "cpu",
    ) -> Built:
        """Of descriptors [n, d], checked; they stay as they are."""
        n = len(descriptors)
        return cls.from_load(propagator, lambda _: descriptors.clone(), n, Clock(silent), device)


def build_from_file(job: FilePropagation, progress: Progress) -> tuple[Built, Clock]:
    """Of the file of a propagation that is ready to run.

    Raises:
        MemoryBudgetError: the scores of all classes do not fit beside the graph.
    """
    check_all_at_once(job.chunks, len(job.given.classes), job.budget)
    clock = Clock(progress)
    built = Built.from_load(job.propagator, job.source.load, job.source.points, clock, job.device)
    return built, clock
