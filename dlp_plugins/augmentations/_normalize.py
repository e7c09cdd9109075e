"""Raw examples to normalised floats: what every augmentation does last."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Normalizer:
    """(x - mean) / std, with uint8 pixels scaled to 0..1 and floats as they are.

    Args:
        mean, std: of each channel of images, or of each number of vectors; or one for all.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.channels = len(mean)
        self._scale = torch.tensor([1 / s for s in std])
        self._pixel_scale = torch.tensor([1 / (255 * s) for s in std])
        self._shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)])
        self._ready: dict[tuple[torch.device, torch.dtype, int], tuple[Tensor, Tensor]] = {}

    def __call__(self, values: Tensor, like: Tensor) -> Tensor:
        """Normalise values in the range of `like`, the raw examples, and in its memory format.

        values: [b, channels, height, width] or [b, d]; `like` itself, which is not changed, or
            values made from it, which may be overwritten.
        """
        scale, shift = self._on(values.device, like.dtype, values.ndim)
        # One channel or one pixel: both formats hold, and torch counts it as contiguous.
        plain = like.is_contiguous() or not like.is_contiguous(memory_format=torch.channels_last)
        wanted = torch.contiguous_format if plain else torch.channels_last
        floats = values.clone() if values is like and like.is_floating_point() else values.float()
        return floats.mul_(scale).add_(shift).contiguous(memory_format=wanted)

    def _on(self, device: torch.device, dtype: torch.dtype, ndim: int) -> tuple[Tensor, Tensor]:
        key = (device, dtype, ndim)
        if key not in self._ready:
            scale = self._pixel_scale if dtype == torch.uint8 else self._scale
            shape = (1, -1) + (1,) * (ndim - 2)
            self._ready[key] = (scale.view(shape).to(device), self._shift.view(shape).to(device))
        return self._ready[key]
