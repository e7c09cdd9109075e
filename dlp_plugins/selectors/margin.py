"""The points whose two best classes are closest: the usual uncertainty sampling."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlp_plugins.graph import Graph
from dlp_plugins.registry import selectors
from dlp_plugins.selectors.contract import Pool, Selector, best_first


@selectors.register("margin")
@dataclass(frozen=True)
class Margin(Selector):
    """argmin p_i(1) - p_i(2), the two largest probabilities (Scheffer et al., 2001).

    Needs labels to start from. With few of them it is worse than random points on two of three
    sets, as it finds outliers and points between two classes that are known (docs/suggest.md).

    A neighbour in the graph of a point that is chosen is passed over, as long as there are others.
    A point that no label reaches counts as the most uncertain.
    """

    needs_probabilities = True

    def select(self, pool: Pool, count: int) -> Tensor:
        assert pool.graph is not None
        assert pool.probabilities is not None
        p = pool.probabilities
        if p.shape[1] == 1:
            margin = p[:, 0]
        else:
            best = p.topk(2, dim=1).values
            margin = best[:, 0] - best[:, 1]
        points = pool.unlabeled
        return spread_out(points[best_first(-margin[points])], pool.graph, count)


def spread_out(order: Tensor, graph: Graph, count: int) -> Tensor:
    """The first `count` of an order of points, neighbours of earlier ones last.

    Rounds over what is left of the order; in each a point is passed over if an edge links it to one
    that this round has taken.
    """
    crow, col = graph.crow_indices.cpu(), graph.col_indices.cpu()
    taken: list[int] = []
    left = order.tolist()
    while len(taken) < count:
        passed_over = torch.zeros(graph.num_nodes, dtype=torch.bool)
        later = []
        for i in left:
            if len(taken) == count:
                break
            if passed_over[i]:
                later.append(i)
                continue
            taken.append(i)
            passed_over[col[crow[i] : crow[i + 1]]] = True
        left = later
    return order.new_tensor(taken)
