"""Batched augmentation against a slow reference for one image at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tvf

from dlp_plugins.augment import AugmentationSettings, Augmenter
from dlp_plugins.image_ops import cutout, rotate, shift_and_flip

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def images(n: int = 64, channels: int = 3, side: int = 16) -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (n, channels, side, side), dtype=np.uint8))


def augmenter(**settings) -> Augmenter:
    return Augmenter(AugmentationSettings(**settings), MEAN, STD)


def test_a_plain_view_is_the_normalised_image():
    x = images()
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    assert torch.allclose(augmenter().plain(x), (x / 255 - mean) / std, atol=1e-5)
    assert augmenter().weak(x).equal(augmenter().plain(x))  # by default nothing changes


def reference_shift(image: torch.Tensor, dy: int, dx: int, mirrored: bool, mode: str):
    side, m = image.shape[-1], max(abs(dy), abs(dx), 1)
    padded = tvf.pad(image, [m] * 4, padding_mode="reflect" if mode == "reflect" else "constant")
    moved = tvf.crop(padded, m - dy, m - dx, side, side)
    return tvf.horizontal_flip(moved) if mirrored else moved


@pytest.mark.parametrize("padding", ["reflect", "zero"])
def test_shift_and_flip_agree_with_the_reference_image_by_image(padding):
    x = images(40).float()
    g = torch.Generator().manual_seed(0)
    dy, dx = (torch.randint(-4, 5, (40, 1), generator=g) for _ in range(2))
    mirrored = torch.rand(40, 1, generator=g) < 0.5
    ours = shift_and_flip(x, dy, dx, mirrored, padding)
    for i in range(40):
        expected = reference_shift(x[i], int(dy[i]), int(dx[i]), bool(mirrored[i]), padding)
        assert ours[i].equal(expected)


def test_every_shift_is_equally_likely_and_half_are_mirrored():
    n, side = 8000, 9
    x = torch.zeros(n, 1, side, side, dtype=torch.uint8)
    x[:, :, 4, 4] = 255
    torch.manual_seed(0)
    view = Augmenter(AugmentationSettings(translate=2), (0.0,), (1.0,)).weak(x)
    where = view.flatten(1).argmax(dim=1)
    counts = torch.bincount(where, minlength=side * side).reshape(side, side)
    inner = counts[2:7, 2:7]
    assert inner.sum() == n
    assert inner.min() > 0.75 * n / 25
    assert inner.max() < 1.25 * n / 25
    x[:, :, 4, 4], x[:, :, 4, 0] = 0, 255
    view = Augmenter(AugmentationSettings(flip=True), (0.0,), (1.0,)).weak(x)
    mirrored = (view[:, 0, 4, 8] > 0).float().mean()
    assert 0.46 < mirrored < 0.54


def test_images_of_a_batch_are_augmented_independently_and_anew_at_each_call():
    x = images(1).expand(32, -1, -1, -1).contiguous()
    torch.manual_seed(0)
    augment = augmenter(translate=4, flip=True, rotate=10)
    one, other = augment.weak(x), augment.weak(x)
    assert len({tuple(v.flatten()[:50].tolist()) for v in one}) > 25
    assert not one.equal(other)


def test_the_same_seed_gives_the_same_views():
    x, augment = images(), augmenter(translate=4, flip=True, rotate=10)
    for view in (augment.weak, augment.strong):
        torch.manual_seed(3)
        first = view(x)
        torch.manual_seed(3)
        assert view(x).equal(first)


def test_rotation_agrees_with_the_reference_away_from_the_border():
    x = images(8, side=33).float()
    angle = torch.linspace(-10, 10, 8)
    ours = rotate(x, angle)
    for i in range(8):
        bilinear = tvf.InterpolationMode.BILINEAR
        theirs = tvf.rotate(x[i], float(angle[i]), interpolation=bilinear)
        middle = (slice(None), slice(8, 25), slice(8, 25))
        assert torch.allclose(ours[i][middle], theirs[middle], atol=1.5)


def test_no_rotation_changes_nothing():
    x = images(8).float()
    assert torch.allclose(rotate(x, torch.zeros(8)), x, atol=1e-3)


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 32), (3, 84)])
def test_the_strong_view_is_finite_of_the_same_shape_and_stronger(channels, side):
    x = images(16, channels, side)
    augment = Augmenter(AugmentationSettings(translate=1), (0.5,) * channels, (0.25,) * channels)
    torch.manual_seed(0)
    plain, weak, strong = augment.plain(x), augment.weak(x), augment.strong(x)
    assert strong.shape == plain.shape
    assert torch.isfinite(strong).all()
    assert (strong - plain).abs().mean() > (weak - weak.mean()).abs().mean() * 0.1
    assert not strong.equal(weak)
    limits = ((0 - 0.5) / 0.25 - 1e-3, (1 - 0.5) / 0.25 + 1e-3)
    assert strong.min() >= limits[0]
    assert strong.max() <= limits[1]


def test_the_input_is_left_as_it_was():
    x = images()
    before = x.clone()
    augment = augmenter(translate=4, flip=True, rotate=10)
    augment.weak(x), augment.strong(x), augment.plain(x)
    assert x.equal(before)


def test_cutout_blanks_a_square_of_each_image():
    torch.manual_seed(0)
    x = torch.ones(200, 3, 16, 16)
    share = (cutout(x, 0.5) != 1).float().mean(dim=(1, 2, 3))
    assert (share > 0).all()
    assert share.max() <= 0.26  # half of the side: a quarter of the image, less at the border


def test_channels_last_stays_channels_last():
    x = images().to(memory_format=torch.channels_last)
    view = augmenter(translate=4, flip=True).weak(x)
    assert view.is_contiguous(memory_format=torch.channels_last)
