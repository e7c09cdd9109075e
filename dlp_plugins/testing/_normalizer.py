"""check_normalizer: probabilities of any scores, whether rows come at once or in blocks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dlp_plugins.normalizers.contract import Normalizer
from dlp_plugins.registry import normalizers
from dlp_plugins.testing._common import built, require, require_tensor


def check_normalizer(normalizer: str | Normalizer, **parameters: Any) -> None:
    """Check a normalizer: rows that sum to 1, zeros for a row of zeros, no dependence on blocks.

    Raises:
        AssertionError: the sentence says what is wrong.
    """
    made: Normalizer = built(normalizers, normalizer, parameters)
    for classes in (1, 2, 10):
        where = f"{made} with {classes} class{'es' if classes > 1 else ''}"
        random = torch.Generator().manual_seed(0)
        scores = torch.rand(60, classes, generator=random) ** 4
        scores[:20] -= 0.01  # a solver stopped early leaves some entries below 0
        scores[5] = 0  # no label reaches
        scores[6] = -1e-9
        if classes > 1:
            scores[:, -1] = 0  # a class without a label
        unlabeled = torch.arange(60) % 7 > 0
        shares = torch.full((classes,), 1 / classes)
        before = scores.clone()
        p = _both_passes(made, [scores], [unlabeled], shares, where)
        require(torch.equal(scores, before), f"{where}: it changes the scores it is given")
        require((p >= 0).all(), f"{where}: a probability is negative: {float(p.min())}")
        total = p.sum(dim=1)
        fine = ((total - 1).abs() < 1e-4) | (total == 0)
        require(fine.all(), f"{where}: a row must sum to 1, or to 0 without evidence")
        require(not p[5:7].any(), f"{where}: a row without a positive score must give zeros")
        require(
            total[(before > 0.02).any(dim=1)].all(),
            f"{where}: a row with a positive score must not give zeros",
        )
        require(classes == 1 or not p[:, -1].any(), f"{where}: a class without scores gets some")
        again = _both_passes(made, scores.split(13), unlabeled.split(13), shares, where)
        require(
            torch.allclose(again, p, atol=1e-6),
            f"{where}: probabilities depend on how rows are put into blocks",
        )
        none = made.apply(scores[:0], _total(made, [scores], [unlabeled], shares), shares)
        require_tensor(none, (0, classes), f"{where}: probabilities of no rows")


def _total(made: Normalizer, scores: Any, unlabeled: Any, shares: Tensor) -> Tensor | None:
    return made.fit(lambda: zip(scores, unlabeled, strict=True), shares)


def _both_passes(
    made: Normalizer, scores: Any, unlabeled: Any, shares: Tensor, where: str
) -> Tensor:
    total = _total(made, scores, unlabeled, shares)
    if total is not None:
        require_tensor(total, tuple(total.shape), f"{where}: statistics", torch.float64)
    parts = [made.apply(block, total, shares) for block in scores]
    for part, block in zip(parts, scores, strict=True):
        require_tensor(part, tuple(block.shape), f"{where}: probabilities")
    return torch.cat(parts)
