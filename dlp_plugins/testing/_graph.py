"""check_graph and check_affinity."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from dlp_plugins.affinities.contract import Affinity
from dlp_plugins.graph import Neighbors
from dlp_plugins.graphs.contract import GraphBuilder
from dlp_plugins.registry import affinities, graphs
from dlp_plugins.testing._common import built, require, require_tensor


def check_graph(
    builder: str | GraphBuilder,
    *,
    least_recall: float = 0.7,
    points: int = 400,
    device: str | torch.device = "cpu",
    **parameters: Any,
) -> None:
    """Check a graph builder on clustered points, with duplicates, zero vectors, and k over n.

    No point is its own neighbour, none is listed twice, similarities are the inner products, an
    order lists every point once, inputs are not changed. A builder with `exact` finds every true
    neighbour (apart from ties), any other a share of `least_recall`.

    Args:
        builder: a graph builder, or a registered name and `parameters` to build it with.
        least_recall: share of true neighbours that an approximate builder must find.
        points: how many to search among; some approximate builders need more to work at all.
        device: where the points lie.

    Raises:
        AssertionError: with a sentence on what is wrong.
    """
    b: GraphBuilder = built(graphs, builder, parameters)
    random = torch.Generator().manual_seed(0)
    centers = torch.randn(8, 16, generator=random)
    v = centers[torch.randint(0, 8, (points,), generator=random)]
    v = F.normalize(v + 0.5 * torch.randn(points, 16, generator=random), dim=1)
    _check_neighbors(b, v.to(device), "clustered points", least_recall)
    v = v.clone()
    v[: points // 4] = v[0]
    _check_neighbors(b, v.to(device), "points of which a quarter are the same", 0.0)
    v[-3:] = 0
    _check_neighbors(b, v.to(device), "points of which three are 0", 0.0)
    for few in (1, 2, 3):
        _check_neighbors(b, v[-3 - few : -3].to(device), f"{few} points", 0.0)


def _check_neighbors(b: GraphBuilder, v: Tensor, points: str, least_recall: float) -> None:
    where = f"{b} on {points}"
    n, before = len(v), v.clone()
    found = b.neighbors(v)
    require(isinstance(found, Neighbors), f"{where}: neighbors() must return Neighbors")
    require(torch.equal(v, before), f"{where}: it changes the descriptors it is given")
    width = found.indices.shape[1]
    require(width <= min(b.k, n - 1), f"{where}: {width} neighbours each, more than there can be")
    indices = require_tensor(found.indices, (n, width), f"{where}: indices", None).long()
    require(not found.indices.is_floating_point(), f"{where}: indices must be int32 or int64")
    require(indices.device == v.device, f"{where}: neighbours must be on the descriptors' device")
    require(((indices >= -1) & (indices < n)).all(), f"{where}: indices must lie in -1..n-1")
    own = torch.arange(n, device=v.device)[:, None]
    require((indices != own).all(), f"{where}: a point is its own neighbour")
    ordered = indices.sort(dim=1).values
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    require(not twice.any(), f"{where}: a neighbour is listed twice")
    if found.order is not None:
        every = torch.arange(n)
        require(
            torch.equal(found.order.cpu().sort().values, every),
            f"{where}: order must list every point once, as int64",
        )
    true = v @ v.T
    there = indices >= 0
    inner = true.gather(1, indices.clamp(min=0))
    require(
        tuple(found.similarities.shape) == (n, width)
        and torch.allclose(found.similarities[there], inner[there], atol=1e-4),
        f"{where}: similarities must be the inner products of the descriptors",
    )
    k = min(b.k, n - 1)
    true.fill_diagonal_(-torch.inf)
    least = true.topk(k, dim=1).values[:, -1:] if k else true[:, :0]
    recall = float(((inner >= least - 1e-5) & there).sum()) / max(1, n * k)
    wanted = 1.0 if b.exact else least_recall
    require(
        n == 1 or recall >= wanted,
        f"{where}: it finds {recall:.3f} of the true neighbours; {wanted:.3f} are required",
    )


def check_affinity(affinity: str | Affinity, **parameters: Any) -> None:
    """Check an affinity: [n, k] finite weights >= 0 for any similarities, inputs not changed.

    Raises:
        AssertionError: with a sentence on what is wrong.
    """
    a: Affinity = built(affinities, affinity, parameters)
    random = torch.Generator().manual_seed(0)
    similarities = 2 * torch.rand(20, 5, generator=random) - 1
    similarities[0] = 1.0  # duplicates
    similarities[1] = -1.0
    similarities[2] = 0.0
    indices = torch.stack([torch.randperm(19, generator=random)[:5] for _ in range(20)])
    indices += (indices >= torch.arange(20)[:, None]).long()  # a point is not its own neighbour
    indices[3, 2:] = -1
    indices[4] = -1
    for count, width in ((20, 5), (20, 1), (1, 0)):
        neighbors = Neighbors(indices[:count, :width], similarities[:count, :width])
        before = neighbors.similarities.clone()
        weights = require_tensor(a.weights(neighbors), (count, width), f"{a}: weights")
        require((weights >= 0).all(), f"{a}: a weight is negative")
        require(torch.equal(neighbors.similarities, before), f"{a}: it changes the similarities")
    weights = a.weights(Neighbors(indices, similarities))
    require(weights[0].min() > 0, f"{a}: duplicates must be linked; their weight is 0")
    require(
        torch.equal(a.weights(Neighbors(indices, similarities)), weights), f"{a}: two calls differ"
    )
    blocks = [slice(0, 7), slice(7, 8), slice(8, 20)]
    parts = list(a.by_rows(blocks, lambda rows: Neighbors(indices[rows], similarities[rows])))
    found = indices >= 0
    require(
        torch.allclose(torch.cat(parts)[found], weights[found], rtol=1e-5),
        f"{a}: weights of blocks of rows are not those of all at once"
        + ", so it must not say rowwise = True" * a.rowwise,
    )
