"""Equal rows are found, whatever the order, and share one label."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dlp_plugins.embeddings import duplicates
from dlp_plugins.embeddings.duplicates import find_distinct


@pytest.mark.parametrize("block", [1, 10**6])
def test_equal_rows_are_one_group(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(duplicates, "BLOCK_ENTRIES", block)
    rng = np.random.default_rng(0)
    base = torch.from_numpy(rng.standard_normal((20, 3))).float()
    chosen = torch.from_numpy(rng.integers(20, size=200))
    rows = base[chosen]
    found = find_distinct(rows)
    assert found.duplicates == 200 - len(chosen.unique())
    assert torch.equal(found.select(rows)[found.group], rows)
    assert len(found.select(rows).unique(dim=0)) == len(found.points)
    _, first = np.unique(chosen.numpy(), return_index=True)
    assert found.points.tolist() == sorted(first)


def test_rows_that_differ_stay_apart() -> None:
    rows = torch.eye(4)
    assert find_distinct(rows).group is None
    assert find_distinct(rows).duplicates == 0


def test_zero_rows_have_nothing_in_common_and_minus_zero_is_zero() -> None:
    rows = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [1.0, -0.0], [-0.0, 0.0]])
    found = find_distinct(rows)
    assert found.group is not None
    assert found.group.tolist() == [0, 1, 2, 1, 3]


def test_a_collision_of_keys_is_no_duplicate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_keys", lambda rows: np.zeros(len(rows), np.int64))
    found = find_distinct(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]))
    assert found.group is not None
    assert found.group.tolist() == [0, 1, 0]


def test_a_group_has_the_label_of_most_of_its_points() -> None:
    rows = torch.tensor([[1.0, 0.0]] * 4 + [[0.0, 1.0]] * 3 + [[0.6, 0.8]])
    found = find_distinct(rows)
    assert found.labels(torch.tensor([-1, 2, 1, 2, -1, -1, -1, 0])).tolist() == [2, -1, 0]
    assert found.labels(torch.tensor([-1, 2, 1, -1, 4, -1, 3, -1])).tolist() == [1, 3, -1]
