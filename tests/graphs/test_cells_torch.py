"""`cells` as a GPU runs it, on the CPU: against every pair, and against the cells themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from dlp_plugins.graphs import _cells_torch
from dlp_plugins.graphs._blockwise import search_blockwise
from dlp_plugins.graphs._cells_torch import search_cells
from dlp_plugins.graphs.contract import recall

N, DIM, K, SIZE = 1500, 8, 5, 64
CELLS = N // SIZE
ENTRIES = 2**16


@pytest.fixture(scope="module")
def points() -> Tensor:
    g = torch.Generator().manual_seed(0)
    classes = torch.randn(6, DIM, generator=g)
    of = torch.randint(0, 6, (N,), generator=g)
    return F.normalize(classes[of] + 0.4 * torch.randn(N, DIM, generator=g))


def test_with_every_cell_probed_it_is_exact(points: Tensor) -> None:
    found = search_cells(points, K, SIZE, CELLS, seed=0, entries=ENTRIES)
    exact = search_blockwise(points, K)
    torch.testing.assert_close(
        found.similarities.sort().values, exact.similarities.sort().values, rtol=0, atol=1e-6
    )
    torch.testing.assert_close(
        (points[:, None] * points[found.indices.long()]).sum(-1), found.similarities
    )
    assert not (found.indices == torch.arange(N)[:, None]).any()


def test_candidates_are_the_members_of_the_cells_probed(points: Tensor) -> None:
    centroids = _cells_torch._centroids(points, CELLS, 0, ENTRIES)
    probed = np.argsort(-(points @ centroids.T).numpy(), axis=1, kind="stable")[:, :2]
    found = search_cells(points, K, SIZE, probes=2, seed=0, entries=ENTRIES)
    similar = (points @ points.T).numpy()
    for i in range(0, N, 37):
        candidates = np.flatnonzero(np.isin(probed[:, 0], probed[i]))
        expected = np.sort(similar[i, candidates[candidates != i]])[-K:]
        np.testing.assert_allclose(np.sort(found.similarities[i].numpy()), expected, atol=1e-6)
    assert found.order is not None
    assert (np.diff(probed[found.order.numpy(), 0]) >= 0).all()


@pytest.mark.parametrize("entries", [1, 2**12, 2**22])
def test_the_size_of_a_batch_changes_nothing(points: Tensor, entries: int) -> None:
    few = points[:300]
    found = search_cells(few, K, SIZE, 3, seed=1, entries=entries)
    expected = search_cells(few, K, SIZE, 3, seed=1, entries=ENTRIES)
    torch.testing.assert_close(
        found.similarities.sort().values, expected.similarities.sort().values
    )


def test_fewer_points_than_neighbours_in_the_cells(points: Tensor) -> None:
    apart = torch.cat([torch.eye(DIM)[:2].repeat_interleave(150, dim=0), -torch.eye(DIM)[2:3]])
    found = search_cells(apart, 40, 8, 1, seed=3, entries=ENTRIES)
    missing = found.indices < 0
    assert (found.similarities[missing] == 0).all()
    assert (
        found.indices[~missing] != torch.arange(len(apart))[:, None].expand(-1, 40)[~missing]
    ).all()
    assert recall(found, search_blockwise(apart, 40)) > 0.9
