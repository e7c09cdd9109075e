"""Mean and standard deviation of a training split, where a data set does not publish its own."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dlp_plugins.datasets.contract import Images, TensorImages
from dlp_plugins.errors import DataError

BLOCK = 1024  # images in float64 at a time
SAMPLE = 2000  # images that are read to measure those which are not in memory
SMALLEST_STD = 1e-3  # of pixels in 0..1: a constant channel is no reason to divide by 0
ROUNDING = 1e-6  # a deviation below this share of the mean is float32's rounding


def measure(split: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, or of each number of vectors.

    uint8 pixels are scaled to 0..1. Of images that are not in memory, evenly spread ones are read.

    Raises:
        DataError: an image cannot be read; names every such one.
    """
    count = 0
    total, squares = torch.zeros(2, split.shape[0], dtype=torch.float64)
    for x in _blocks(split):
        if x.ndim == 4:
            x = x.flatten(2).transpose(1, 2).flatten(0, 1)  # [pixels, channels]
        count += len(x)
        total += x.sum(dim=0)
        squares += x.square().sum(dim=0)
    if count == 0:
        raise DataError("None of the images can be read, so there is nothing to train on.")
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt()
    if split.dtype == torch.uint8:
        std = std.clamp(min=SMALLEST_STD)
    else:
        std = torch.where(std > ROUNDING * mean.abs(), std, 1.0)
    return tuple(mean.tolist()), tuple(std.tolist())


def _blocks(split: Images) -> Iterator[Tensor]:
    """[b, *shape] float64"""
    scale = 255 if split.dtype == torch.uint8 else 1
    if isinstance(split, TensorImages):
        for block in split.images.split(BLOCK):
            yield block.double() / scale
        return
    for image in split.stream(range(0, len(split), max(1, len(split) // SAMPLE))):
        yield image[None].double() / scale
