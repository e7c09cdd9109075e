"""Photos for a network of one channel."""

from __future__ import annotations

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601, as Pillow has them


def to_grey(images: Tensor) -> Tensor:
    """[b, 1, height, width] uint8 of [b, 3, height, width] uint8; what is grey stays as it is.

    torchvision's weights sum to 0.9999 and it cuts off the rest, so its grey is one level darker.
    """
    weights = torch.tensor(LUMA, device=images.device)[:, None, None]
    grey = (images * weights).sum(dim=1, keepdim=True)
    return grey.round_().clamp_(max=255).to(torch.uint8)
