"""Operations on batches of images, each image with its own parameters.

Pixels are [b, channels, height, width] in 0..255; a parameter is [b], or [b, 1]. Nothing here waits
for the device: no branch depends on a tensor's values.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

Padding = Literal["reflect", "zero"]

GEOMETRY = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
COLOR = (
    "brightness", "contrast", "saturation", "sharpness", "posterize", "solarize", "autocontrast",
)  # fmt: skip
OPERATIONS = (*GEOMETRY, *COLOR, "identity")


def shift_and_flip(
    pixels: Tensor, dy: Tensor, dx: Tensor, mirrored: Tensor, padding: Padding = "reflect"
) -> Tensor:
    """Shift each image by whole pixels, then mirror it left to right where asked. Any dtype.

    dy, dx: [b, 1] integers, down and right, less than the side. mirrored: [b, 1] bool.
    'reflect' does not repeat the pixel at the border, as `torch.nn.functional.pad`.
    """
    b, channels, height, width = pixels.shape
    y = torch.arange(height, device=pixels.device) - dy
    x = torch.arange(width, device=pixels.device) - dx
    x = torch.where(mirrored, x.flip(1), x)
    # One gather of flat positions is four times as fast as indexing by rows and columns.
    source = _reflect(y, height)[:, :, None] * width + _reflect(x, width)[:, None, :]
    positions = source.view(b, 1, -1).expand(-1, channels, -1)
    moved = pixels.flatten(2).gather(2, positions).view(pixels.shape)
    if padding == "zero":
        inside = _inside(y, height)[:, None, :, None] & _inside(x, width)[:, None, None, :]
        moved = moved * inside
    return moved


def _reflect(i: Tensor, side: int) -> Tensor:
    return (side - 1) - ((side - 1) - i.abs()).abs()


def _inside(i: Tensor, side: int) -> Tensor:
    return (i >= 0) & (i < side)


def rotate(pixels: Tensor, angle: Tensor, padding: Padding = "reflect") -> Tensor:
    """Turn each image about its center by `angle` [b] degrees, counter-clockwise; bilinear."""
    nothing = torch.zeros_like(angle)
    return affine(pixels, angle, nothing, nothing, nothing, nothing, padding)


def affine(
    pixels: Tensor,
    angle: Tensor,
    shear_x: Tensor,
    shear_y: Tensor,
    dx: Tensor,
    dy: Tensor,
    padding: Padding = "reflect",
) -> Tensor:
    """Turn, shear and shift each image about its center in one bilinear sampling.

    Output pixel p, measured from the center, is read at R S p + d. All parameters are [b]. angle:
    degrees; R turns the image counter-clockwise. S = [[1, shear_x], [shear_y, 1]]. dx, dy: pixels.
    """
    height, width = pixels.shape[2:]
    cos, sin = (angle * (math.pi / 180)).cos(), (angle * (math.pi / 180)).sin()
    # grid_sample measures in half sides, so that a unit along x is another length than along y
    aspect = height / width
    top = [cos - sin * shear_y, (cos * shear_x - sin) * aspect, dx * (2 / width)]
    bottom = [(sin + cos * shear_y) / aspect, cos + sin * shear_x, dy * (2 / height)]
    theta = torch.stack([torch.stack(top, dim=1), torch.stack(bottom, dim=1)], dim=1)
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    mode = "reflection" if padding == "reflect" else "zeros"
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode=mode, align_corners=False)


def rand_augment(
    pixels: Tensor, operations: int, magnitude: float, padding: Padding = "reflect"
) -> Tensor:
    """Give each image `operations` different ones of OPERATIONS, each of random strength.

    RandAugment (Cubuk et al., 2020) as FixMatch uses it, strengths uniform from none to `magnitude`
    of the full range: rotation 30 degrees, shear 0.3, shift 0.3 of the side, blend factor 1 ± 0.95,
    posterizing to 4 bits, solarizing everything. Departures, so that the batch is one computation:
    the operations follow one another in a fixed order, none twice, and 'equalize' is left out.

    pixels: floats in 0..255, and so is the result.
    """
    if operations == 0:
        return pixels
    b, device = len(pixels), pixels.device
    picked = torch.rand(b, len(OPERATIONS), device=device).topk(operations).indices
    chosen = torch.zeros(b, len(OPERATIONS), device=device).scatter_(1, picked, 1.0)
    level = torch.rand(b, len(OPERATIONS), device=device) * magnitude * chosen
    sign = torch.randint(0, 2, (b, len(OPERATIONS)), device=device) * 2 - 1
    amount = dict(zip(OPERATIONS, (level * sign).unbind(1), strict=True))
    unsigned = dict(zip(OPERATIONS, level.unbind(1), strict=True))

    height, width = pixels.shape[2:]
    pixels = affine(
        pixels,
        30 * amount["rotate"],
        0.3 * amount["shear_x"],
        0.3 * amount["shear_y"],
        0.3 * width * amount["translate_x"],
        0.3 * height * amount["translate_y"],
        padding,
    )
    pixels = blend(torch.zeros_like(pixels), pixels, 1 + 0.95 * amount["brightness"])
    mean = gray(pixels).mean(dim=(1, 2, 3), keepdim=True)
    pixels = blend(mean, pixels, 1 + 0.95 * amount["contrast"])
    pixels = blend(gray(pixels), pixels, 1 + 0.95 * amount["saturation"])
    pixels = blend(smooth(pixels), pixels, 1 + 0.95 * amount["sharpness"])
    pixels = posterize(pixels, 8 - (4 * unsigned["posterize"]).round())
    pixels = solarize(pixels, 256 * (1 - unsigned["solarize"]))
    stretched = chosen[:, OPERATIONS.index("autocontrast")].bool()
    return torch.where(_each(stretched), autocontrast(pixels), pixels)


def blend(other: Tensor, pixels: Tensor, factor: Tensor) -> Tensor:
    """other + factor (pixels - other), kept in 0..255; factor [b], 1 changes nothing.

    From black it is brightness, from the mean gray contrast, from gray saturation, from a smoothed
    image sharpness.
    """
    return torch.lerp(other.expand_as(pixels), pixels, _each(factor)).clamp_(0, 255)


def gray(pixels: Tensor) -> Tensor:
    """Luminance [b, 1, height, width] of three channels (ITU-R 601-2); the mean of any others."""
    if pixels.shape[1] != 3:
        return pixels.mean(dim=1, keepdim=True)
    red, green, blue = pixels.split(1, dim=1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def smooth(pixels: Tensor) -> Tensor:
    """PIL's smoothing filter: 3x3 of ones with 5 in the middle; the border stays as it is."""
    smoothed = pixels.clone()
    inner = smoothed[:, :, 1:-1, 1:-1]
    inner.copy_((9 * F.avg_pool2d(pixels, 3, stride=1) + 4 * inner) / 13)
    return smoothed


def posterize(pixels: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest `bits` [b] (whole numbers of 1..8) of each pixel; 8 changes nothing."""
    step = _each(torch.exp2(8 - bits))
    return torch.where(step > 1, (pixels / step).floor() * step, pixels)


def solarize(pixels: Tensor, threshold: Tensor) -> Tensor:
    """Invert the pixels from `threshold` [b] up; 256 changes nothing."""
    return torch.where(pixels >= _each(threshold), 255 - pixels, pixels)


def autocontrast(pixels: Tensor) -> Tensor:
    """Stretch each channel of each image to 0..255; a flat channel stays as it is."""
    low = pixels.amin(dim=(2, 3), keepdim=True)
    spread = pixels.amax(dim=(2, 3), keepdim=True) - low
    return torch.where(spread > 0, (pixels - low) * (255 / spread.clamp(min=1e-6)), pixels)


def cutout(views: Tensor, side: float) -> Tensor:
    """Blank a square at a random place of each image (DeVries and Taylor, 2017).

    views: [b, channels, height, width], normalised: 0 is the mean color. side: the square's, as a
    share of the image's shorter one. The square's center lies inside the image, its border may not.
    """
    b, _, height, width = views.shape
    length = round(side * min(height, width))

    def hidden(extent: int) -> Tensor:
        first = torch.randint(0, extent, (b, 1), device=views.device) - length // 2
        i = torch.arange(extent, device=views.device)
        return (i >= first) & (i < first + length)

    square = hidden(height)[:, None, :, None] & hidden(width)[:, None, None, :]
    return views.clone().masked_fill_(square, 0.0)  # not in place it would lose the memory format


def _each(parameter: Tensor) -> Tensor:
    """[b] as [b, 1, 1, 1]"""
    return parameter.view(-1, 1, 1, 1)
