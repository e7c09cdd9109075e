"""check_weighter and check_balancer."""

from __future__ import annotations

from typing import Any

import torch

from dlp_plugins.balancers.contract import Balancer
from dlp_plugins.registry import balancers, weighters
from dlp_plugins.testing._common import built, require, require_tensor
from dlp_plugins.weighters.contract import Weighter


def check_weighter(weighter: str | Weighter, **parameters: Any) -> None:
    """Check a weighter: [n] certainties in 0..1, each from its own row alone, for any row.

    Raises:
        AssertionError: with a sentence on what is wrong.
    """
    w: Weighter = built(weighters, weighter, parameters)
    for classes in (1, 2, 10):
        where = f"{w} with {classes} class{'es' if classes > 1 else ''}"
        rows = torch.rand(50, classes, generator=torch.Generator().manual_seed(0)) ** 4
        rows /= rows.sum(dim=1, keepdim=True)
        rows[0] = 1 / classes  # no preference
        rows[1] = 0  # one class alone
        rows[1, 0] = 1
        before = rows.clone()
        certainty = require_tensor(w.certainty(rows), (50,), f"{where}: certainty")
        require(
            (certainty >= 0).all() and (certainty <= 1).all(),
            f"{where}: certainties must lie in 0..1; they reach {float(certainty.min())} and "
            f"{float(certainty.max())}",
        )
        require(
            certainty[1] >= certainty.max() - 1e-6,
            f"{where}: a row of one class alone must be as certain as any",
        )
        require(
            certainty[0] <= certainty.min() + 1e-6,
            f"{where}: a row without preference must be as uncertain as any",
        )
        require(torch.equal(rows, before), f"{where}: it changes the rows it is given")
        # `dlp propagate` passes rows in blocks: a certainty may not depend on the other rows.
        split = torch.cat([w.certainty(rows[:7]), w.certainty(rows[7:])])
        require(
            torch.allclose(split, certainty, atol=1e-6),
            f"{where}: a row's certainty depends on the other rows",
        )
        require_tensor(w.certainty(rows[:0]), (0,), f"{where}: certainty of no rows")


def check_balancer(balancer: str | Balancer, **parameters: Any) -> None:
    """Check a balancer: [c] finite weights, 1 for a balanced set, 0 for a class without examples.

    Raises:
        AssertionError: with a sentence on what is wrong.
    """
    b: Balancer = built(balancers, balancer, parameters)
    even = require_tensor(b.class_weights(torch.tensor([7, 7, 7])), (3,), f"{b}: weights")
    require(
        torch.allclose(even, torch.ones(3)),
        f"{b}: a balanced set must give 1 for every class; it gives {even.tolist()}",
    )
    counts = torch.tensor([100, 0, 1, 25])
    before = counts.clone()
    weights = require_tensor(b.class_weights(counts), (4,), f"{b}: weights")
    require((weights >= 0).all(), f"{b}: a weight is negative: {weights.tolist()}")
    require(weights[1] == 0, f"{b}: a class without an example must get 0, not {weights[1]}")
    require(torch.equal(counts, before), f"{b}: it changes the counts it is given")
    order = torch.tensor([3, 2, 1, 0])
    require(
        torch.allclose(b.class_weights(counts[order]), weights[order]),
        f"{b}: a class's weight depends on its number",
    )
    nothing = require_tensor(
        b.class_weights(torch.zeros(3, dtype=torch.long)), (3,), f"{b}: weights"
    )
    require(not nothing.any(), f"{b}: no examples at all must give zeros, not {nothing.tolist()}")
