"""Photos for a network of one channel."""

from __future__ import annotations

import torch
from torch import Tensor

from dlp_plugins.augmentations._image_ops import gray


def to_gray(images: Tensor) -> Tensor:
    """[b, 1, height, width] uint8 of [b, 1 or 3, height, width] uint8; gray stays as it is.

    torchvision's weights sum to 0.9999 and it cuts off the rest, so its gray is one level darker.
    """
    return gray(images.float()).round_().to(torch.uint8)
