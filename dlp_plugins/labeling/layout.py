"""Where each point lies on the map: its two principal components."""

from __future__ import annotations

import torch
from torch import Tensor

from dlp_plugins._threads import row_slices

STEPS = 2**16 - 1
OUTLIERS = 0.002  # share of the points at each end that is drawn at the edge
BLOCK_ENTRIES = 2**22


def principal_map(f: Tensor) -> Tensor:
    """[m, 2] int32 in 0..65535 of rows f [m, d]: the two directions of most variance.

    Exact, from the covariance in float64. Each axis is stretched to the whole range. The sign of an
    axis is such that its largest loading is positive, so that the map is the same at every start.
    """
    f = f.cpu()
    n, d = f.shape
    mean = f.mean(dim=0, dtype=torch.float64)
    covariance = torch.zeros(d, d, dtype=torch.float64)
    for rows in row_slices(n, d, BLOCK_ENTRIES):
        centered = f[rows].double() - mean
        covariance += centered.T @ centered
    _, vectors = torch.linalg.eigh(covariance)
    axes = vectors.flip(1)[:, :2]
    if d == 1:
        axes = torch.cat([axes, torch.zeros(1, 1)], dim=1)
    largest = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True))
    axes = axes * torch.where(largest < 0, -1.0, 1.0)
    xy = torch.empty(n, 2, dtype=torch.float64)
    for rows in row_slices(n, d, BLOCK_ENTRIES):
        xy[rows] = (f[rows].double() - mean) @ axes
    ordered = xy.sort(dim=0).values
    low, high = ordered[int(OUTLIERS * n)], ordered[n - 1 - int(OUTLIERS * n)]
    scaled = (xy - low) / torch.where(high > low, high - low, 1.0)
    return (scaled.clamp(0, 1) * STEPS).round().int()
