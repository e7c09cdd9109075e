"""check_transform: rows of unit length, whether they come at once or in blocks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dlp_plugins.registry import transforms
from dlp_plugins.testing._common import built, require, require_tensor
from dlp_plugins.transforms.contract import Transform, total_statistics

POINTS = 60


def check_transform(transform: str | Transform, **parameters: Any) -> None:
    """Check a transform: unit rows, zeros for a zero row, no dependence on blocks or on length.

    Raises:
        AssertionError: the sentence says what is wrong.
    """
    made: Transform = built(transforms, transform, parameters)
    for dim in (1, 2, 20):
        random = torch.Generator().manual_seed(0)
        latent = torch.randn(POINTS, 3, generator=random) @ torch.randn(3, dim, generator=random)
        rows = latent + 0.3 * torch.randn(POINTS, dim, generator=random) + 1
        rows[5] = 0
        rows[6] = rows[7]
        _check_rows(made, rows, f"{made} on [{POINTS}, {dim}]")
    _check_rows(made, torch.ones(POINTS, 4), f"{made} on rows that are all the same")


def _check_rows(made: Transform, rows: Tensor, where: str) -> None:
    before = rows.clone()
    found, total = _both_passes(made, [rows], where)
    require(torch.equal(rows, before), f"{where}: it changes the rows it is given")
    length = found.norm(dim=1)
    fine = ((length - 1).abs() < 1e-4) | (length == 0)
    require(fine.all(), f"{where}: a row must have length 1 or be zero")
    zero = ~rows.any(dim=1)
    require(not found[zero].any(), f"{where}: a zero row has no direction and must stay zero")
    for size in (13, 1):
        parts, _ = _both_passes(made, rows.split(size), where)
        require(
            torch.allclose(parts, found, atol=1e-5),
            f"{where}: rows depend on how they are put into blocks",
        )
    # rows of a file arrive with unit length, those of a caller with any
    scale = torch.logspace(-3, 3, len(rows), dtype=torch.float64)[:, None]
    scaled, _ = _both_passes(made, [rows * scale], where)
    require(
        torch.allclose(scaled, found, atol=1e-5),
        f"{where}: the length of a row matters; only its direction may",
    )
    none = made.apply(rows[:0], total)
    require_tensor(none, (0, rows.shape[1]), f"{where}: no rows")
    note = made.note(total, rows.shape[1])
    require(note is None or isinstance(note, str), f"{where}: note() must give a sentence or None")


def _both_passes(made: Transform, blocks: Any, where: str) -> tuple[Tensor, Tensor | None]:
    total = total_statistics(made, blocks)
    if total is not None:
        require_tensor(total, tuple(total.shape), f"{where}: statistics", torch.float64)
    before = None if total is None else total.clone()
    parts = [made.apply(block, total) for block in blocks]
    for part, block in zip(parts, blocks, strict=True):
        require_tensor(part, tuple(block.shape), f"{where}: rows")
    unchanged = total is None or before is None or torch.equal(total, before)
    require(unchanged, f"{where}: apply() changes the statistics")
    return torch.cat(parts), total
