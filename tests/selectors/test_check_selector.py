"""check_selector against selectors that break their contract."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dlp_plugins.selectors.contract import Pool, Selector
from dlp_plugins.testing import check_selector


class First(Selector):
    """The first points without a label, with a fault."""

    def __init__(self, fault: Callable[[Pool, Tensor], Tensor]) -> None:
        self.fault = fault

    def select(self, pool: Pool, count: int) -> Tensor:
        return self.fault(pool, pool.unlabeled[:count].clone())


def spoil(pool: Pool, chosen: Tensor) -> Tensor:
    assert pool.graph is not None
    pool.graph.values.mul_(1.001)
    return chosen


FAULTS: dict[str, tuple[Callable[[Pool, Tensor], Tensor], str]] = {
    "labelled": (lambda p, c: torch.arange(len(c)), "a point that has a label"),
    "twice": (lambda p, c: c[:1].expand(len(c)), "a point is chosen twice"),
    "too few": (lambda p, c: c[:-1], r"points must be \[1\]"),
    "outside": (lambda p, c: c + 60, "points must lie in"),
    "int32": (lambda p, c: c.int(), "must be torch.int64"),
    "random": (lambda p, c: p.unlabeled[torch.randperm(len(p.unlabeled))][: len(c)], "two calls"),
    "spoils": (spoil, "changes the graph"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_check_selector_finds(fault):
    broken, sentence = FAULTS[fault]
    with pytest.raises(AssertionError, match=sentence):
        check_selector(First(broken))


def test_check_selector_passes_what_the_faults_start_from():
    check_selector(First(lambda pool, chosen: chosen))
