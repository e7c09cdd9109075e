"""check_transform finds what breaks the contract."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from dlp_plugins import testing
from dlp_plugins.inputs import unit_rows
from dlp_plugins.transforms import Transform
from dlp_plugins.transforms.center import Center
from dlp_plugins.transforms.contract import moments


def unit(rows: Tensor) -> Tensor:
    return unit_rows(rows)


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        (lambda x: 2 * unit(x), "length 1 or be zero"),
        (lambda rows: unit_rows(rows, torch.float64), "must be torch.float32"),
        (lambda x: unit(x)[:-1], r"rows must be \["),
        (lambda x: unit(x.sub_(x.mean(dim=0))), "changes the rows"),
        (lambda x: unit(x + 1e-3), "zero row"),
        (lambda x: unit(x - x.mean(dim=0) * x.any(dim=1, keepdim=True)), "put into blocks"),
        (lambda x: unit(x * (1 + x.abs())), "only its direction may"),
        (lambda x: unit(x) / unit(x).norm(dim=1, keepdim=True), "NaN or infinity"),
    ],
)
def test_check_transform_finds(result: Callable[[Tensor], Tensor], sentence: str) -> None:
    class Faulty(Transform):
        def apply(self, rows: Tensor, total: Tensor | None) -> Tensor:
            return result(rows)

    with pytest.raises(AssertionError, match=sentence):
        testing.check_transform(Faulty())


def test_check_transform_finds_statistics_that_are_no_sums() -> None:
    class Means(Center):
        def statistics(self, rows: Tensor) -> Tensor:
            return moments(F.normalize(rows.double(), dim=1)) / len(rows)

    class Narrow(Center):
        def statistics(self, rows: Tensor) -> Tensor:
            return super().statistics(rows).float()

    class Used(Center):
        def apply(self, rows: Tensor, total: Tensor | None) -> Tensor:
            found = super().apply(rows, total)
            assert total is not None
            total += 1
            return found

    for broken, sentence in (
        (Means(), "put into blocks"),
        (Narrow(), "must be torch.float64"),
        (Used(), "changes the statistics"),
    ):
        with pytest.raises(AssertionError, match=sentence):
            testing.check_transform(broken)


def test_check_transform_finds_a_note_that_is_no_sentence() -> None:
    class Noted(Center):
        def note(self, total: Tensor | None, dim: int) -> str | None:
            return torch.ones(1)  # type: ignore[return-value]

    with pytest.raises(AssertionError, match="a sentence or None"):
        testing.check_transform(Noted())
