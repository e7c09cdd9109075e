"""Equal rows are found, whatever the order, and share one label."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dlp_plugins.embeddings.chunked import propagate_chunked
from dlp_plugins.embeddings.fitted import FittedPropagation
from dlp_plugins.embeddings.memory import ClassChunks
from dlp_plugins.inputs import unit_rows
from dlp_plugins.propagation import Propagator, duplicates, propagate
from dlp_plugins.propagation.beliefs import to_beliefs
from dlp_plugins.propagation.duplicates import find_distinct


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
    monkeypatch.setattr(duplicates, "row_keys", lambda rows: np.zeros(len(rows), np.int64))
    found = find_distinct(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]))
    assert found.group is not None
    assert found.group.tolist() == [0, 1, 0]


def test_a_group_has_the_label_of_most_of_its_points() -> None:
    rows = torch.tensor([[1.0, 0.0]] * 4 + [[0.0, 1.0]] * 3 + [[0.6, 0.8]])
    found = find_distinct(rows)
    assert found.labels(torch.tensor([-1, 2, 1, 2, -1, -1, -1, 0])).tolist() == [2, -1, 0]
    assert found.labels(torch.tensor([-1, 2, 1, -1, 4, -1, 3, -1])).tolist() == [1, 3, -1]


def test_copies_share_their_label_in_propagate_too():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(40, 6)) + 3 * np.eye(6)[j % 2] for j in range(2)])
    labels = np.full(80, -1)
    labels[[0, 40]] = [0, 1]
    settings = {"k": 5, "alpha": 0.9, "normalizer": "class_mass", "calibrated": True}
    copies = np.arange(0, 80, 4)
    more = np.concatenate([x, x[copies], x[copies]])
    known = np.concatenate([labels, np.full(40, -1)])
    known[80 + 1] = 1  # a copy with a label of its own keeps it
    known[4] = 0
    labels[4] = 0
    alone = propagate(x, labels, unknown=True, **settings)
    found = propagate(more, known, unknown=True, **settings)
    assert found.graph.num_nodes == 80
    assert int(found.labels[81]) == 1
    for name in ("probabilities", "scores", "reached", "unknown"):
        own, of_all = getattr(alone, name), getattr(found, name)
        assert torch.equal(of_all[80:100], of_all[:80:4]), name
        assert of_all.shape == (120, *own.shape[1:])
    assert torch.equal(found.labels[100:], found.labels[:80:4])
    plain = propagate(more, np.concatenate([labels, np.full(40, -1)]), unknown=True, **settings)
    for name in ("labels", "certainty", "probability", "scores"):
        assert torch.equal(getattr(plain, name)[:80], getattr(alone, name)), name


def test_copies_get_the_class_of_the_most_weight_and_count_in_the_balance(tmp_path):
    x = np.array([[1.0, 0.1]] * 4 + [[1.0, 0.3], [0.1, 1.0], [0.3, 1.0]])
    labels, weights = np.array([0, 0, 1, -1, -1, 2, -1]), np.array([0.1, 0.1, 10, 1, 1, 1, 1])
    found = propagate(x, labels, label_weights=weights, k=2)
    assert found.labels[:4].tolist() == [0, 0, 1, 1]
    _, c, beliefs = to_beliefs(labels, None, weights)
    chunked = propagate_chunked(
        Propagator.default(k=2), lambda tick: unit_rows(torch.from_numpy(x).float()),
        torch.from_numpy(labels), c, ClassChunks(c, False, 0), scratch=tmp_path, beliefs=beliefs,
    )  # fmt: skip
    assert torch.equal(found.labels, chunked.labels)
    torch.testing.assert_close(found.class_weights, chunked.class_weights)
    torch.testing.assert_close(found.certainty, chunked.certainty)


def test_rows_of_other_lengths_in_one_direction_are_copies_everywhere(tmp_path):
    """Row 80 is twice row 45, and 81 a copy of the labelled row 0."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(40, 6)) + 2 * np.eye(6)[j % 2] for j in range(2)])
    x = np.concatenate([x, 2 * x[[45]], x[[0]]])
    labels = np.full(82, -1)
    labels[[0, 1, 40, 80]] = [1, 0, 1, 0]
    made = Propagator.default(k=5, alpha=0.9, normalizer="class_mass")
    found = propagate(x, labels, propagator=made, calibrated=True)
    fitted = FittedPropagation.of(made, x, labels, 2, calibrated=True)
    chunked = propagate_chunked(
        made, lambda tick: unit_rows(torch.from_numpy(x).float()), torch.from_numpy(labels), 2,
        ClassChunks(2, False, 0), scratch=tmp_path, calibrated=True,
    )  # fmt: skip
    assert found.graph.num_nodes == 80
    assert chunked.duplicates == 2
    assert found.labels[[45, 80, 81]].tolist() == [0, 0, 1]
    assert fitted.labels.tolist() == found.labels.tolist() == chunked.labels.tolist()
    for other in (torch.from_numpy(fitted.probability), chunked.probability):
        torch.testing.assert_close(other, found.probability, rtol=0, atol=1e-5)
    assert found.probability[[45, 80, 81]].tolist() == [1, 1, 1]
