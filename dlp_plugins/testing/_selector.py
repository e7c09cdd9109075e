"""check_selector: different points without a label, from any labels and from none."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from dlp_plugins.graph import assemble
from dlp_plugins.registry import selectors
from dlp_plugins.selectors.contract import Pool, Selector
from dlp_plugins.testing._common import built, require, require_tensor

POINTS, DIM, CLASSES, K = 60, 6, 3, 5
LONELY = 59  # a zero vector, which no edge links to the others


def check_selector(selector: str | Selector, **parameters: Any) -> None:
    """Check a selector: different points without a label, also all of them, the same each time.

    Raises:
        AssertionError: the sentence says what is wrong.
    """
    made: Selector = built(selectors, selector, parameters)
    for labeled in (0, 1, 20):
        if labeled == 0 and made.needs_probabilities:
            continue  # it cannot do without a label
        pool = _pool(made, labeled)
        for count in (1, 7, POINTS - labeled):
            where = f"{made} with {labeled} labels, {count} to choose"
            chosen = _chosen(made, pool, count, where)
            require(
                torch.equal(chosen, _chosen(made, pool, count, where)), f"{where}: two calls differ"
            )


def _pool(made: Selector, labeled: int) -> Pool:
    """Points of three clusters, the first ones labelled, with what the selector needs."""
    random = torch.Generator().manual_seed(0)
    truth = torch.arange(POINTS) % CLASSES
    centers = torch.randn(CLASSES, DIM, generator=random)
    f = F.normalize(centers[truth] + 0.5 * torch.randn(POINTS, DIM, generator=random), dim=1)
    f[LONELY] = 0
    similarity = (f @ f.T).fill_diagonal_(-1)
    found = similarity.topk(K, dim=1)
    labels = torch.where(torch.arange(POINTS) < labeled, truth, -1)
    p = torch.rand(POINTS, CLASSES, generator=random) + F.one_hot(truth, CLASSES)
    p[LONELY] = 0  # no label reaches it
    return Pool(
        f,
        labels,
        assemble(found.indices, found.values.clamp(min=0) ** 3) if made.needs_graph else None,
        F.normalize(p, p=1, dim=1) if made.needs_probabilities else None,
    )


def _chosen(made: Selector, pool: Pool, count: int, where: str) -> Tensor:
    inputs = {"descriptors": pool.descriptors, "labels": pool.labels}
    if pool.graph is not None:
        inputs["graph"] = pool.graph.values
    if pool.probabilities is not None:
        inputs["probabilities"] = pool.probabilities
    before = {what: x.clone() for what, x in inputs.items()}
    chosen = made.select(pool, count)
    for what, x in inputs.items():
        require(torch.equal(x, before[what]), f"{where}: it changes the {what}")
    chosen = require_tensor(chosen, (count,), f"{where}: points", torch.int64)
    inside = bool(((chosen >= 0) & (chosen < POINTS)).all())
    require(inside, f"{where}: points must lie in 0..{POINTS - 1}")
    require(len(chosen.unique()) == count, f"{where}: a point is chosen twice")
    require((pool.labels[chosen] < 0).all(), f"{where}: a point that has a label is chosen")
    return chosen
