"""Gaussian noise and blanked numbers: views of vectors, for which no picture's geometry holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from dlp_plugins.augmentations._normalize import Normalizer
from dlp_plugins.augmentations.contract import Augmentation
from dlp_plugins.errors import DataError
from dlp_plugins.registry import augmentations

Deviations = Annotated[float, Field(ge=0)]


@augmentations.register("noise")
class Noise(Augmentation):
    """Gaussian noise on every number of a vector or an image; the strong view blanks some as well.

    With x normalised, e ~ N(0, 1) and m ~ Bernoulli(1 - drop), each drawn for every number:
    weak x + weak e; strong m (x + strong e). A blanked number is the mean, 0.

    Args:
        mean, std: of each number or channel, or one for all; x is (raw - mean) / std.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        weak: Annotated[
            Deviations, Field(description="noise of the weak view, in deviations")
        ] = 0.1,
        strong: Annotated[
            Deviations, Field(description="noise of the strong view, in deviations")
        ] = 0.3,
        drop: Annotated[
            float, Field(ge=0, lt=1, description="strong view: share of the numbers blanked")
        ] = 0.2,
    ) -> None:
        self.weak_noise, self.strong_noise, self.drop = weak, strong, drop
        self._normalize = Normalizer(mean, std)

    def plain(self, examples: Tensor) -> Tensor:
        """Normalised, otherwise unchanged.

        Raises:
            DataError: neither vectors nor images, or of another length than the mean's.
        """
        channels = self._normalize.channels
        known = examples.dtype in (torch.uint8, torch.float32)
        if not known or examples.ndim not in (2, 4) or channels not in (1, examples.shape[1]):
            raise DataError(
                f"augmentation noise takes vectors [b, {channels}] or images [b, {channels}, "
                f"height, width] of float32 or uint8, as mean and std are of {channels} numbers; "
                f"got {examples.dtype} {list(examples.shape)}."
            )
        return self._normalize(examples, examples)

    def weak(self, examples: Tensor) -> Tensor:
        """With noise; drawn again at every call.

        Raises:
            DataError: as `plain`.
        """
        return self._add_noise(self.plain(examples), self.weak_noise)

    def strong(self, examples: Tensor) -> Tensor:
        """With more noise, and some numbers blanked; drawn again at every call.

        Raises:
            DataError: as `plain`.
        """
        noisy = self._add_noise(self.plain(examples), self.strong_noise)
        return noisy.masked_fill_(torch.rand_like(noisy) < self.drop, 0.0)

    def _add_noise(self, values: Tensor, size: float) -> Tensor:
        return values.add_(torch.randn_like(values), alpha=size) if size else values
