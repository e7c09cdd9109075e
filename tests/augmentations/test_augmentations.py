"""Batched augmentation against a slow reference for one image at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tvf

from dlp_plugins.augmentations import _image_ops as image_ops
from dlp_plugins.augmentations._image_ops import (
    OPERATIONS,
    affine,
    autocontrast,
    blend,
    cutout,
    gray,
    posterize,
    rand_augment,
    rotate,
    shift_and_flip,
    smooth,
    solarize,
)
from dlp_plugins.augmentations.image import ImageAugmentation
from dlp_plugins.augmentations.noise import Noise
from dlp_plugins.errors import DataError

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def images(n: int = 64, channels: int = 3, side: int = 16) -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (n, channels, side, side), dtype=np.uint8))


def augmenter(**settings) -> ImageAugmentation:
    return ImageAugmentation(MEAN, STD, **settings)


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
    view = ImageAugmentation((0.0,), (1.0,), translate=2).weak(x)
    where = view.flatten(1).argmax(dim=1)
    counts = torch.bincount(where, minlength=side * side).reshape(side, side)
    inner = counts[2:7, 2:7]
    assert inner.sum() == n
    assert inner.min() > 0.75 * n / 25
    assert inner.max() < 1.25 * n / 25
    x[:, :, 4, 4], x[:, :, 4, 0] = 0, 255
    view = ImageAugmentation((0.0,), (1.0,), flip=True).weak(x)
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


def test_affine_reads_every_pixel_where_it_says():
    """Against a slow float64 loop over the pixels of each image, which need not be square."""
    x = torch.rand(3, 1, 6, 9) * 255
    angle, shear_x, shear_y = torch.tensor([[25.0, -10, 0], [0.2, 0, -0.3], [-0.1, 0.3, 0]])
    dx, dy = torch.tensor([[1.5, 0, -2], [0, -1.25, 1]])
    ours = affine(x, angle, shear_x, shear_y, dx, dy, "zero")
    for n in range(3):
        radians = np.deg2rad(float(angle[n]))
        turn = np.array([[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]])
        shear = np.array([[1, float(shear_x[n])], [float(shear_y[n]), 1]])
        for row in range(6):
            for column in range(9):
                p = turn @ shear @ [column - 4, row - 2.5] + [float(dx[n]), float(dy[n])] + [4, 2.5]
                expected = sum(
                    float(x[n, 0, r, c]) * max(0, 1 - abs(p[0] - c)) * max(0, 1 - abs(p[1] - r))
                    for r in range(6)
                    for c in range(9)
                )
                assert float(ours[n, 0, row, column]) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("channels", [1, 3])
def test_color_operations_agree_with_the_reference_image_by_image(channels):
    x = images(12, channels).float()
    factor = torch.linspace(0.05, 1.95, 12)
    bits = torch.arange(1, 9).repeat(2)[:12]
    threshold = torch.linspace(0, 255, 12)
    mean = gray(x).mean(dim=(1, 2, 3), keepdim=True)
    dull = (x * 0.3 + 40).floor()  # leaves autocontrast something to stretch
    # each tolerance is what the reference loses by rounding to whole numbers
    pairs = {
        "brightness": (blend(torch.zeros_like(x), x, factor), tvf.adjust_brightness, factor, 1),
        "contrast": (blend(mean, x, factor), tvf.adjust_contrast, factor, 2),
        "saturation": (blend(gray(x), x, factor), tvf.adjust_saturation, factor, 2),
        "sharpness": (blend(smooth(x), x, factor), tvf.adjust_sharpness, factor, 2),
        "posterize": (posterize(x, bits), tvf.posterize, bits, 0),
        "solarize": (solarize(x, threshold), tvf.solarize, threshold, 0),
    }
    for name, (ours, reference, parameter, tolerance) in pairs.items():
        for i in range(12):
            theirs = reference(x[i].byte(), parameter[i].item())
            assert (ours[i] - theirs).abs().max() <= tolerance, f"{name}, {parameter[i]}"
    for i in range(12):
        assert (autocontrast(dull)[i] - tvf.autocontrast(dull[i].byte())).abs().max() <= 1


def test_an_image_gets_as_many_operations_as_asked_and_all_are_drawn(monkeypatch):
    """The parameters that reach the operations are neutral unless an operation was picked."""
    seen: dict[str, list] = {}

    def spy(name):
        real = getattr(image_ops, name)

        def wrapped(*args):
            seen.setdefault(name, []).append(
                [a.clone() for a in args if isinstance(a, torch.Tensor)]
            )
            return real(*args)

        monkeypatch.setattr(image_ops, name, wrapped)

    for name in ("affine", "blend", "posterize", "solarize"):
        spy(name)
    torch.manual_seed(0)
    n = 4000
    rand_augment(torch.rand(n, 3, 8, 8) * 255, 2, 1.0)
    geometry = [a != 0 for a in seen["affine"][0][1:]]
    blends = [b[2] != 1 for b in seen["blend"]]
    others = [seen["posterize"][0][1] < 8, seen["solarize"][0][1] < 256]
    used = torch.stack([*geometry, *blends, *others]).float()
    assert len(used) == len(OPERATIONS) - 2  # autocontrast and identity have no parameter
    assert used.sum(dim=0).max() == 2
    expected = 2 / len(OPERATIONS)
    rates = used.mean(dim=1)
    rates[-2] /= 7 / 8  # one in eight strengths rounds to keeping all eight bits
    assert ((rates - expected).abs() < 0.03).all()


def test_no_operations_or_no_magnitude():
    x = images(8).float()
    assert rand_augment(x, 0, 1.0) is x
    torch.manual_seed(0)
    still = rand_augment(x, 1, 0.0)
    same = (still - x).abs().amax(dim=(1, 2, 3)) < 0.05
    assert same.float().mean() > 0.6  # all but those that drew autocontrast


def test_no_rotation_changes_nothing():
    x = images(8).float()
    assert torch.allclose(rotate(x, torch.zeros(8)), x, atol=1e-3)


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 32), (3, 84)])
def test_the_strong_view_is_finite_of_the_same_shape_and_stronger(channels, side):
    x = images(16, channels, side)
    augment = ImageAugmentation((0.5,) * channels, (0.25,) * channels, translate=1)
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


# -- float images and vectors ----------------------------------------------------------------------


@pytest.mark.parametrize("view", ["plain", "weak", "strong"])
def test_float_images_give_the_views_of_the_same_uint8_images(view):
    x = images(8)
    augment = augmenter(translate=2, flip=True, rotate=5)
    torch.manual_seed(0)
    expected = getattr(augment, view)(x)
    torch.manual_seed(0)
    found = getattr(augment, view)(x / 255)
    # A pixel at a threshold of posterize or solarize may fall on its other side by rounding.
    assert ((found - expected).abs() < 1e-3).float().mean() > 0.99


@pytest.mark.parametrize("view", ["plain", "weak", "strong"])
@pytest.mark.parametrize("augment", [augmenter(), Noise(MEAN, STD)], ids=["image", "noise"])
def test_float_inputs_are_not_changed(augment, view):
    for x in (torch.rand(4, 3, 8, 8), torch.rand(4, 3)):
        if x.ndim == 2 and isinstance(augment, ImageAugmentation):
            continue
        before = x.clone()
        getattr(augment, view)(x)
        assert x.equal(before)


def test_noise_is_its_formula():
    torch.manual_seed(0)
    x = torch.rand(4000, 3) * torch.tensor([1.0, 2, 5])
    normal = (x - torch.tensor(MEAN)) / torch.tensor(STD)
    augment = Noise(MEAN, STD, weak=0.2, strong=0.5, drop=0.25)
    assert torch.allclose(augment.plain(x), normal, atol=1e-5)
    error = augment.weak(x) - normal
    assert error.mean(dim=0).abs().max() < 0.02
    assert error.std(dim=0).tolist() == pytest.approx([0.2] * 3, rel=0.05)
    strong = augment.strong(x)
    blank = strong == 0
    assert blank.float().mean(dim=0).tolist() == pytest.approx([0.25] * 3, abs=0.03)
    assert (strong - normal)[~blank].std() == pytest.approx(0.5, rel=0.05)
    assert not augment.weak(x).equal(augment.weak(x))


def test_noise_takes_one_mean_for_all_numbers():
    x = torch.rand(5, 7)
    assert torch.allclose(Noise((0.5,), (0.25,)).plain(x), (x - 0.5) / 0.25, atol=1e-6)


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (torch.rand(4, 5), r"vectors \[b, 3\].*got torch.float32 \[4, 5\]"),
        (torch.rand(4, 3).double(), "got torch.float64"),
        (torch.rand(4, 3, 8), r"got torch.float32 \[4, 3, 8\]"),
    ],
)
def test_noise_refuses_other_inputs(x, text):
    with pytest.raises(DataError, match=text):
        Noise(MEAN, STD).weak(x)


def test_the_augmentation_of_images_sends_vectors_to_noise():
    with pytest.raises(
        DataError, match=r"got \[4, 3\] of torch.float32.*set augmentation = 'noise'"
    ):
        augmenter().weak(torch.rand(4, 3))
