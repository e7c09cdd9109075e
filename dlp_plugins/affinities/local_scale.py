"""a_ij = exp(-d_ij^2 / (s_i s_j)): a Gaussian that is wider where points are sparser."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from dlp_plugins.affinities.contract import Affinity
from dlp_plugins.graph import Neighbors
from dlp_plugins.registry import affinities

MIN_SCALE = 1e-3  # the distance that rounding alone gives to two equal descriptors


@affinities.register("local_scale")
@dataclass(frozen=True)
class LocalScale(Affinity):
    """Gaussian with local scale (Zelnik-Manor & Perona, NeurIPS 2004, eq. 4).

    d_ij = |v_i - v_j|, so d_ij^2 = 2 - 2 v_i . v_j; s_i is the distance from i to its m-th nearest
    neighbour, or to the farthest one found where there are fewer. Descriptors at a right angle or
    more get 0, and so a zero vector gets no edge.
    """

    m: Annotated[int, Field(ge=1, description="which neighbour's distance is the scale")] = 7

    def weights(self, neighbors: Neighbors) -> Tensor:
        scale = self._scale(neighbors)
        return _weights(neighbors, scale, scale)

    def by_rows(
        self, blocks: Sequence[slice], lists: Callable[[slice], Neighbors]
    ) -> Iterator[Tensor]:
        if blocks:
            scale = torch.cat([self._scale(lists(rows)) for rows in blocks])
            yield from (_weights(lists(rows), scale[rows], scale) for rows in blocks)

    def _scale(self, neighbors: Neighbors) -> Tensor:
        """s [n] of lists [n, k]."""
        squared = _squared_distances(neighbors)
        if not squared.shape[1]:
            return squared.new_full((len(squared),), MIN_SCALE)
        found = neighbors.indices >= 0
        # Missing neighbours count as near here, so that the m-th of the found ones is at `rank`.
        ascending = squared.masked_fill(~found, 0).sort(dim=1).values
        missing = (~found).sum(dim=1, keepdim=True)
        rank = (missing + self.m - 1).clamp(max=squared.shape[1] - 1)
        return ascending.gather(1, rank).squeeze(1).sqrt().clamp(min=MIN_SCALE)


def _weights(neighbors: Neighbors, own: Tensor, scale: Tensor) -> Tensor:
    """a [b, k] of lists [b, k], for their points' scales [b] and those of all points [n]."""
    product = own[:, None] * scale[neighbors.indices.clamp(min=0).long()]
    missing = (neighbors.indices < 0) | (neighbors.similarities <= 0)
    return torch.exp(-_squared_distances(neighbors) / product).masked_fill(missing, 0)


def _squared_distances(neighbors: Neighbors) -> Tensor:
    return (2 - 2 * neighbors.similarities).clamp(min=0)
