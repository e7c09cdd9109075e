"""Augmentation of whole batches where they lie: no Python per image, no copy to another device.

uint8 images [b, channels, height, width] go in; normalised floats of the same shape and memory
format come out. Every image draws its own parameters, all from torch's global generator of the
images' device, so that whoever seeds that generator decides the views.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from dlp_plugins.errors import DataError
from dlp_plugins.strong_augment import cutout, rand_augment

Padding = Literal["reflect", "zero"]


class AugmentationSettings(BaseModel):
    """The recipe's table [augmentation]. By default images are not changed at all."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    translate: int = Field(0, ge=0, description="shift by up to so many pixels, each way")
    flip: bool = Field(False, description="mirror left to right, half of the time")
    rotate: float = Field(0.0, ge=0, le=180, description="turn by up to so many degrees, each way")
    padding: Padding = Field(
        "reflect", description="what a shift or turn brings in: the image reflected, or black"
    )
    strong_operations: int = Field(
        2, ge=0, le=12, description="strong view: how many of RandAugment's operations an image gets"
    )
    strong_magnitude: float = Field(
        1.0, ge=0, le=1, description="strong view: share of each operation's full range"
    )
    cutout: float = Field(
        0.5, ge=0, le=1, description="strong view: side of the blanked square, of the image's side"
    )


class Augmenter:
    """Plain, weakly and strongly augmented views of a batch.

    Args:
        settings: how much of each.
        mean, std: of each channel, for pixels scaled to 0..1; a view is (x/255 - mean) / std.
    """

    def __init__(
        self, settings: AugmentationSettings, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        self.settings = settings
        self.mean = torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1)
        self.std = torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1)
        self._statistics: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def plain(self, images: Tensor) -> Tensor:
        """Normalised, otherwise unchanged.

        Raises:
            DataError: not uint8 [b, channels, height, width], or the channels are not those of mean.
        """
        self._check(images)
        return self._normalize(images.float().div_(255), images)

    def weak(self, images: Tensor) -> Tensor:
        """Randomly turned, shifted and flipped, in this order; each view drawn anew.

        Raises:
            DataError: as `plain`; or the shift is not less than the image's side.
        """
        self._check(images)
        return self._normalize(self._weak(images), images)

    def strong(self, images: Tensor) -> Tensor:
        """The weak view, then RandAugment and Cutout, as in FixMatch (Sohn et al., 2020, app. D).

        Raises:
            DataError: as `weak`.
        """
        self._check(images)
        s = self.settings
        pixels = rand_augment(self._weak(images), s.strong_operations, s.strong_magnitude)
        return cutout(self._normalize(pixels, images), s.cutout)

    def _weak(self, images: Tensor) -> Tensor:
        """Float pixels in 0..1."""
        s, b = self.settings, len(images)
        if s.rotate:
            angle = torch.empty(b, device=images.device).uniform_(-s.rotate, s.rotate)
            images = rotate(images.float(), angle, s.padding)
        if s.translate or s.flip:
            shape, device = (b, 1), images.device
            dy = torch.randint(-s.translate, s.translate + 1, shape, device=device)
            dx = torch.randint(-s.translate, s.translate + 1, shape, device=device)
            mirrored = torch.rand(shape, device=device) < (0.5 if s.flip else 0.0)
            images = shift_and_flip(images, dy, dx, mirrored, s.padding)
        return images.float().div_(255)

    def _normalize(self, pixels: Tensor, like: Tensor) -> Tensor:
        if pixels.device not in self._statistics:
            self._statistics[pixels.device] = (
                self.mean.to(pixels.device),
                self.std.to(pixels.device),
            )
        mean, std = self._statistics[pixels.device]
        channels_last = like.is_contiguous(memory_format=torch.channels_last)
        last = channels_last and not like.is_contiguous()
        wanted = torch.channels_last if last else torch.contiguous_format
        return pixels.sub_(mean).div_(std).contiguous(memory_format=wanted)

    def _check(self, images: Tensor) -> None:
        channels = self.mean.shape[1]
        if images.ndim != 4 or images.dtype != torch.uint8 or images.shape[1] != channels:
            raise DataError(
                f"Images must be uint8 [b, {channels}, height, width] (mean and std have {channels} "
                f"channels); got {images.dtype} {list(images.shape)}."
            )
        if self.settings.translate >= min(images.shape[2:]):
            raise DataError(
                f"augmentation.translate = {self.settings.translate} moves images of "
                f"{images.shape[2]}x{images.shape[3]} out of sight; choose less than their side."
            )


def shift_and_flip(
    images: Tensor, dy: Tensor, dx: Tensor, mirrored: Tensor, padding: Padding = "reflect"
) -> Tensor:
    """Shift each image by whole pixels, then mirror it where told.

    images: [b, channels, height, width], any dtype. dy, dx: [b, 1] int, down and right, less than
    the side. mirrored: [b, 1] bool. 'reflect' does not repeat the border's pixel.
    """
    b, channels, height, width = images.shape
    y = torch.arange(height, device=images.device) - dy
    x = torch.arange(width, device=images.device) - dx
    x = torch.where(mirrored, x.flip(1), x)
    source = _reflect(y, height)[:, :, None] * width + _reflect(x, width)[:, None, :]
    # One gather of flat positions: four times as fast as indexing rows and columns.
    positions = source.view(b, 1, -1).expand(-1, channels, -1)
    moved = images.flatten(2).gather(2, positions).view(images.shape)
    if padding == "zero":
        inside = _inside(y, height)[:, None, :, None] & _inside(x, width)[:, None, None, :]
        moved = moved * inside
    return moved


def rotate(pixels: Tensor, angle: Tensor, padding: Padding = "reflect") -> Tensor:
    """Turn each image about its centre, interpolated bilinearly.

    pixels: [b, channels, height, width] floats. angle: [b], degrees counter-clockwise.
    """
    radians = angle * (math.pi / 180)
    cos, sin = radians.cos(), radians.sin()
    # From a pixel of the turned image back to the original's; y points down.
    rows = [torch.stack([cos, -sin], dim=1), torch.stack([sin, cos], dim=1)]
    return warp(pixels, torch.stack(rows, dim=1), torch.zeros_like(angle)[:, None], padding)


def warp(pixels: Tensor, matrix: Tensor, offset: Tensor, padding: Padding) -> Tensor:
    """Each output pixel (x, y), from the centre, is read at matrix (x, y) + offset.

    pixels: [b, channels, height, width] floats. matrix: [b, 2, 2]. offset: [b, 2] pixels, or [b, 1].
    """
    height, width = pixels.shape[2:]
    # grid_sample measures in half sides, so a pixel is another length along x than along y
    half = torch.tensor([width / 2, height / 2], device=pixels.device)
    theta = torch.cat([matrix * half / half[:, None], (offset / half)[:, :, None]], dim=2)
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    mode = "reflection" if padding == "reflect" else "zeros"
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode=mode, align_corners=False)


def _reflect(i: Tensor, side: int) -> Tensor:
    i = i.abs()
    return (side - 1) - ((side - 1) - i).abs()


def _inside(i: Tensor, side: int) -> Tensor:
    return (i >= 0) & (i < side)
