"""Weighters and balancers against values computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from dlp_plugins.registry import balancers, weighters

ROWS = torch.tensor(
    [
        [1.0, 0.0, 0.0, 0.0],
        [0.25, 0.25, 0.25, 0.25],
        [0.5, 0.5, 0.0, 0.0],
        [0.7, 0.1, 0.1, 0.1],
    ]
)
ENTROPY = -(0.7 * math.log(0.7) + 0.3 * math.log(0.1))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("entropy", [1.0, 0.0, 0.5, 1 - ENTROPY / math.log(4)]),
        ("margin", [1.0, 0.0, 0.0, 0.6]),
        ("max_probability", [1.0, 0.25, 0.5, 0.7]),
        ("uniform", [1.0, 1.0, 1.0, 1.0]),
        ("calibrated", [1.0, 0.25, 0.5, 0.7]),
    ],
)
def test_certainty(name: str, expected: list[float]) -> None:
    torch.testing.assert_close(weighters.build(name).certainty(ROWS), torch.tensor(expected))


@pytest.mark.parametrize("name", weighters.names())
def test_one_class_alone_is_certain(name: str) -> None:
    assert weighters.build(name).certainty(torch.ones(3, 1)).tolist() == [1.0, 1.0, 1.0]


def test_calibrated_takes_a_power_of_the_probabilities() -> None:
    found = weighters.build("calibrated", temperature=0.5).certainty(ROWS)
    torch.testing.assert_close(found, torch.tensor([1.0, 0.25, 0.5, 0.49 / (0.49 + 0.03)]))


def test_entropy_of_a_probability_that_underflows_is_finite() -> None:
    rows = torch.tensor([[1.0, 1e-45, 0.0]])
    assert weighters.build("entropy").certainty(rows).tolist() == pytest.approx([1.0])


@pytest.mark.parametrize(
    ("name", "counts", "expected"),
    [
        # (n / c) / count: 12 examples, 4 classes, so 3 each would be even
        ("inverse_frequency", [6, 3, 2, 1], [0.5, 1.0, 1.5, 3.0]),
        ("inverse_frequency", [6, 0, 4, 2], [0.5, 0.0, 0.75, 1.5]),
        ("inverse_frequency", [5, 5, 5, 5], [1.0, 1.0, 1.0, 1.0]),
        ("inverse_frequency", [0, 0, 0, 0], [0.0, 0.0, 0.0, 0.0]),
        ("none", [6, 0, 2, 1], [1.0, 0.0, 1.0, 1.0]),
    ],
)
def test_class_weights(name: str, counts: list[int], expected: list[float]) -> None:
    weights = balancers.build(name).class_weights(torch.tensor(counts))
    torch.testing.assert_close(weights, torch.tensor(expected))


def test_inverse_frequency_gives_every_class_the_same_total() -> None:
    counts = torch.tensor([1000, 10, 1])
    weights = balancers.build("inverse_frequency").class_weights(counts)
    torch.testing.assert_close(weights * counts, torch.full((3,), 1011 / 3))
