"""Images or vectors that lie in arrays: .npz, .npy or .safetensors."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from dlp_plugins.datasets._arrays import WITH_KEYS, read_array, split_key
from dlp_plugins.datasets._statistics import measure
from dlp_plugins.datasets.contract import UNKNOWN, Dataset, TensorImages, number_classes
from dlp_plugins.errors import DataError, LabelError
from dlp_plugins.registry import datasets

Array = Annotated[
    str | None,
    Field(description="FILE, FILE:KEY, or :KEY of path; by default its own name in path"),
]
Numbers = Annotated[
    list[float] | None,
    Field(
        description="of each channel, integer pixels in 0..1; of each number of a vector, or one "
        "for all; by default measured on the training data"
    ),
]
FEW_CHANNELS = 4


@datasets.register("arrays")
def arrays(
    path: Annotated[
        str | None,
        Field(
            description="an .npz or .safetensors of x_train, y_train, x_test and y_test; or a "
            "folder of these as .npy"
        ),
    ] = None,
    x_train: Array = None,
    y_train: Array = None,
    x_test: Array = None,
    y_test: Array = None,
    channels_last: Annotated[
        bool, Field(description="images are [n, height, width, channels]")
    ] = False,
    classes: Annotated[
        list[str] | None, Field(description="their names; by default 0 to the largest label")
    ] = None,
    mean: Numbers = None,
    std: Numbers = None,
) -> Dataset:
    """Images or vectors in arrays: .npz, .npy or .safetensors.

    Images are [n, channels, height, width], or [n, height, width] with one channel, of uint8,
    uint16 or floats; vectors are [n, d] of any numbers and become float32. Labels are [n] whole
    numbers from 0; -1 in y_train means unknown.

    Raises:
        DataError: a file or key is missing or damaged, or an array is of another shape or type.
        LabelError: labels that are not whole numbers, out of range, or unknown in the test split.
    """
    given = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
    found = {name: _read(name, text, path) for name, text in given.items()}
    train, test = (
        _split(split, found[f"x_{split}"], found[f"y_{split}"], channels_last)
        for split in ("train", "test")
    )
    if classes is None:
        classes = number_classes(int(train.labels.max()), len(train))
    measured = (mean, std) if mean and std else measure(train)
    return Dataset(
        train, test, tuple(classes), tuple(mean or measured[0]), tuple(std or measured[1])
    )


def _read(name: str, text: str | None, path: str | None) -> Tensor:
    if text is not None and not text.startswith(":"):
        return read_array(*split_key(text), default=name)
    if path is None:
        raise DataError(
            "dataset arrays: set dataset.path to a file that holds x_train, y_train, x_test and "
            f"y_test, or dataset.{name} to FILE or FILE:KEY."
        )
    key = text[1:] if text else None
    if Path(path).is_dir():
        return read_array(Path(path) / f"{key or name}.npy", None)
    if Path(path).suffix not in WITH_KEYS:
        raise DataError(
            f"dataset arrays: {path} must be an .npz, a .safetensors or a folder of .npy. A single "
            f"array is set by dataset.{name}."
        )
    return read_array(Path(path), key or name)


def _split(name: str, x: Tensor, y: Tensor, channels_last: bool) -> TensorImages:
    inputs, labels = _inputs(f"x_{name}", x, channels_last), _labels(f"y_{name}", y)
    if len(inputs) != len(labels):
        raise DataError(
            f"dataset arrays: x_{name} has {len(inputs)} rows, y_{name} {len(labels)}. They must "
            "have as many."
        )
    if len(inputs) == 0:
        raise DataError(f"dataset arrays: x_{name} has no row.")
    try:
        return TensorImages(inputs, labels)
    except DataError as error:
        raise DataError(f"dataset arrays: x_{name}: {error}") from None


def _inputs(name: str, x: Tensor, channels_last: bool) -> Tensor:
    """As the contract wants them, where that loses nothing."""
    if x.ndim == 4 and channels_last:
        x = x.permute(0, 3, 1, 2).contiguous()
    elif x.ndim == 4 and x.shape[3] <= FEW_CHANNELS < x.shape[1]:
        warnings.warn(
            f"dataset arrays: {name} is {list(x.shape)}, read as {x.shape[1]} channels of "
            f"{x.shape[2]} x {x.shape[3]} pixels. If its channels come last, set "
            "dataset.channels_last = true.",
            stacklevel=3,
        )
    elif x.ndim == 3:
        x = x[:, None]
    if x.ndim == 2 or x.is_floating_point():
        x = x.to(torch.float32)
    return x


def _labels(name: str, y: Tensor) -> Tensor:
    """[n] int64"""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise LabelError(
            f"dataset arrays: {name} is {list(y.shape)}; labels are one whole number per row, [n]."
        )
    whole = y.to(torch.float64) if y.dtype == torch.uint64 else y
    if whole.is_floating_point():
        wrong = (whole != whole.round()) | (whole.abs() > 2**31)
        if wrong.any():
            at = int(wrong.nonzero()[0])
            raise LabelError(
                f"dataset arrays: {name}[{at}] is {float(whole[at])}; labels are whole numbers "
                f"from 0, and {UNKNOWN} where unknown."
            )
    return whole.to(torch.int64)
