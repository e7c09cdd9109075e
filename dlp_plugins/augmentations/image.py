"""Augmentation of whole batches where they lie: no Python per image, no copy to another device.

Images [b, channels, height, width] of uint8 or float32 go in; normalised floats of the same shape
and memory format come out. Every image draws its own parameters, all from torch's global generator
of the images' device, so that whoever seeds that generator decides the views.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from dlp_plugins.augmentations._image_ops import (
    OPERATIONS,
    Padding,
    cutout,
    rand_augment,
    rotate,
    shift_and_flip,
)
from dlp_plugins.augmentations._normalize import Normalizer
from dlp_plugins.augmentations.contract import Augmentation
from dlp_plugins.errors import DataError
from dlp_plugins.registry import augmentations


@augmentations.register("image")
class ImageAugmentation(Augmentation):
    """Turn, shift, mirror; the strong view adds RandAugment and Cutout. By default: no change.

    The weak view turns, shifts and mirrors, in this order (Iscen et al., section 5.1). The strong
    view is FixMatch's (Sohn et al., NeurIPS 2020): the weak one, then RandAugment and Cutout.

    Args:
        mean, std: of each channel; a view is (x/255 - mean) / std of uint8 images, and
            (x - mean) / std of float32 images, whose strong view takes the range to be 0..1.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        translate: Annotated[
            int, Field(ge=0, description="shift by up to so many pixels, each way")
        ] = 0,
        flip: Annotated[bool, Field(description="mirror left to right, half of the time")] = False,
        rotate: Annotated[
            float, Field(ge=0, le=180, description="turn by up to so many degrees, each way")
        ] = 0.0,
        padding: Annotated[
            Padding,
            Field(description="what a shift or turn brings in: the image reflected, or black"),
        ] = "reflect",
        strong_operations: Annotated[
            int,
            Field(
                ge=0,
                le=len(OPERATIONS),
                description="strong view: how many of RandAugment's operations an image gets",
            ),
        ] = 2,
        strong_magnitude: Annotated[
            float,
            Field(ge=0, le=1, description="strong view: share of each operation's full range"),
        ] = 1.0,
        cutout: Annotated[
            float,
            Field(
                ge=0,
                le=1,
                description="strong view: side of the blanked square, of the image's side",
            ),
        ] = 0.5,
    ) -> None:
        self.translate, self.flip, self.rotate, self.padding = translate, flip, rotate, padding
        self.strong_operations, self.strong_magnitude = strong_operations, strong_magnitude
        self.cutout = cutout
        self._normalize = Normalizer(mean, std)

    def plain(self, images: Tensor) -> Tensor:
        """Normalised, otherwise unchanged.

        Raises:
            DataError: vectors, another type, or other channels than the mean's.
        """
        self._check(images)
        return self._normalize(images, images)

    def weak(self, images: Tensor) -> Tensor:
        """Randomly turned, shifted and flipped, in this order; each view is drawn again.

        Raises:
            DataError: as `plain`; or the shift is not less than the image's side.
        """
        self._check(images)
        return self._normalize(self._move(images), images)

    def strong(self, images: Tensor) -> Tensor:
        """The weak view, then RandAugment and Cutout, as in FixMatch (Sohn et al., NeurIPS 2020).

        Raises:
            DataError: as `weak`.
        """
        self._check(images)
        pixels, floats = self._move(images).float(), images.is_floating_point()
        if floats:
            pixels = pixels * 255
        pixels = rand_augment(pixels, self.strong_operations, self.strong_magnitude, self.padding)
        if floats:
            pixels = pixels / 255
        return cutout(self._normalize(pixels, images), self.cutout)

    def _move(self, images: Tensor) -> Tensor:
        """Pixels in the images' range, of their type unless they were turned."""
        column = (len(images), 1)
        if self.rotate:
            angle = torch.empty(len(images), device=images.device).uniform_(
                -self.rotate, self.rotate
            )
            images = rotate(images.float(), angle, self.padding)
        if self.translate or self.flip:
            dy, dx = (
                torch.randint(-self.translate, self.translate + 1, column, device=images.device)
                for _ in range(2)
            )
            mirrored = torch.rand(column, device=images.device) < (0.5 if self.flip else 0.0)
            images = shift_and_flip(images, dy, dx, mirrored, self.padding)
        return images

    def _check(self, images: Tensor) -> None:
        channels = self._normalize.channels
        known = images.dtype in (torch.uint8, torch.float32)
        if images.ndim != 4 or not known or images.shape[1] != channels:
            raise DataError(
                f"augmentation image takes [b, {channels}, height, width] of uint8 or float32, as "
                f"mean and std are of {channels} channels; got {list(images.shape)} of "
                f"{images.dtype}. For vectors set augmentation = 'noise'."
            )
        height, width = images.shape[2:]
        if self.translate >= min(height, width):
            raise DataError(
                f"augmentation.translate = {self.translate} is too much for images of "
                f"{height}x{width}: choose less than their side."
            )
