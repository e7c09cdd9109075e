"""Which inputs a data set may hold, and what is said of others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from dlp_plugins.datasets import Dataset, LazyImages, TensorImages
from dlp_plugins.datasets._statistics import measure
from dlp_plugins.errors import DataError
from dlp_plugins.testing import check_dataset
from dlp_plugins.training.splits import select

RNG = np.random.default_rng(0)


def labels(n: int) -> Tensor:
    return torch.arange(n) % 2


def dataset(inputs: Tensor, mean: tuple = (0.5,), std: tuple = (0.2,)) -> Dataset:
    split = TensorImages(inputs, labels(len(inputs)))
    return Dataset(split, split, ("a", "b"), mean, std)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("shape", [(4, 1, 8, 8), (4, 1, 5, 9)])
def test_images_of_three_types_square_or_not(kind, shape):
    pixels = torch.from_numpy(RNG.integers(0, 256, shape).astype(kind))
    found = dataset(pixels)
    check_dataset(found)
    assert found.train.shape == shape[1:]
    assert found.train.dtype == (torch.uint8 if kind == "uint8" else torch.float32)


def test_vectors():
    check_dataset(dataset(torch.rand(4, 6)))
    check_dataset(dataset(torch.rand(4, 6), (0.5,) * 6, (0.2,) * 6))


def test_16_bits_are_scaled_to_0_to_1_held_or_read():
    pixels = RNG.integers(0, 65536, (6, 2, 3, 5), dtype=np.uint16)
    pixels[0, 0, 0, 0] = 65535
    expected = torch.from_numpy(pixels / np.float32(65535))
    images = torch.from_numpy(pixels)
    held = TensorImages(images, labels(6))
    read = LazyImages(images.__getitem__, labels(6), (2, 3, 5), torch.float32)
    assert held.images.equal(expected)
    assert held.images.max() == 1
    assert read.load().images.equal(expected)
    assert read.nbytes == held.images.nbytes
    assert select(read, torch.tensor([3])).load().images.equal(expected[3:4])


@pytest.mark.parametrize(
    "inputs",
    [
        torch.zeros(4, 8, 8, dtype=torch.uint8),
        torch.zeros(4, 1, 8, 8, dtype=torch.int64),
        torch.zeros(4, 1, 8, 8, dtype=torch.float64),
        torch.zeros(4, 6, dtype=torch.uint8),
        torch.zeros(4),
        torch.zeros(4, 0),
        torch.zeros(4, 1, 0, 8),
    ],
    ids=lambda x: f"{list(x.shape)} {x.dtype}",
)
def test_other_inputs_are_refused_in_one_sentence(inputs):
    with pytest.raises(DataError, match=r"^The inputs must be images .* these are \[.*\] of torch"):
        TensorImages(inputs, labels(4))
    if inputs.ndim > 1:
        with pytest.raises(DataError, match="The inputs must be images"):
            LazyImages(inputs.__getitem__, labels(4), tuple(inputs.shape[1:]), inputs.dtype)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_are_refused_where_they_stand(bad):
    inputs = torch.rand(5000, 3)
    inputs[4500, 1] = bad  # beyond the first block that is checked
    with pytest.raises(DataError, match="training input 4500 holds NaN or infinity"):
        dataset(inputs)
    lazy = LazyImages(inputs[4400:].__getitem__, labels(200), (3,), torch.float32)
    with pytest.raises(DataError, match="Image 100 holds NaN or infinity"):
        lazy.load()


def test_both_splits_must_be_alike():
    one, other = (TensorImages(torch.rand(2, 1, 4, side), labels(2)) for side in (4, 5))
    with pytest.raises(
        DataError, match=r"training images are \[1, 4, 4\].*test images \[1, 4, 5\]"
    ):
        Dataset(one, other, ("a", "b"), (0.5,), (0.2,))


@pytest.mark.parametrize("count", [2, 5])
def test_mean_and_std_of_vectors_are_one_number_or_one_for_each(count):
    with pytest.raises(DataError, match=r"vectors have 6 numbers.*or one each"):
        dataset(torch.rand(4, 6), (0.5,) * count, (0.2,) * count)


@pytest.mark.parametrize("shape", [(40, 3, 4, 5), (40, 7)])
def test_measured_statistics_are_numpys(shape):
    x = RNG.normal(3, 2, shape).astype(np.float32)
    axes = (0, 2, 3) if len(shape) == 4 else 0
    images = torch.from_numpy(x)
    for split in (
        TensorImages(images, labels(40)),
        LazyImages(images.__getitem__, labels(40), shape[1:], torch.float32),
    ):
        mean, std = measure(split)
        assert mean == pytest.approx(x.mean(axis=axes, dtype=np.float64))
        assert std == pytest.approx(x.std(axis=axes, dtype=np.float64))


def test_a_constant_number_is_not_divided_by_nothing():
    x = torch.rand(50, 2)
    x[:, 1] = 0.1
    assert measure(TensorImages(x, labels(50)))[1][1] == 1.0
    black = torch.zeros(5, 1, 4, 4, dtype=torch.uint8)
    assert measure(TensorImages(black, labels(5))) == ((0.0,), (1e-3,))


def test_an_image_that_is_not_like_the_others_is_named():
    sides = [4, 4, 5]
    lazy = LazyImages(lambda i: torch.zeros(1, 4, sides[i]), labels(3), (1, 4, 4), torch.float32)
    with pytest.raises(
        DataError, match=r"Image 2 is \[1, 4, 5\] of .*; the others are \[1, 4, 4\]"
    ):
        lazy.load()


def test_every_unreadable_image_is_named_in_one_error():
    def read(i: int) -> Tensor:
        if i % 3 == 0:
            raise DataError(f"photo {i} is damaged")
        return torch.zeros(1, 2, 2, dtype=torch.uint8)

    lazy = LazyImages(read, labels(360), (1, 2, 2))
    for work in (lazy.load, lambda: measure(lazy)):
        with pytest.raises(DataError) as error:
            work()
        assert str(error.value).startswith(
            "120 of 360 images cannot be read:\n  photo 0 is damaged\n"
        )
        assert str(error.value).endswith("photo 297 is damaged\n  and 20 more")
