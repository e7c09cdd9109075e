"""What a backbone is, and what backbones share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from dlp_plugins.errors import DataError


class View(NamedTuple):
    """The images that a backbone's published weights are best used with.

    size: side in pixels. interpolation: 'bilinear' or 'bicubic', of the resizing.
    """

    size: int
    interpolation: str


class Backbone(Protocol):
    """A `torch.nn.Module` from inputs to features; any module with `num_features` is one.

    Inputs are normalised floats: images [b, channels, height, width] or vectors [b, d]. Features
    are [b, num_features], those of an input independent of the rest of the batch in evaluation
    mode. A factory may declare the argument `input_shape`, (channels, height, width) or (d,): the
    program fills it in from the data set. The classifier's heads and the L2-normalised descriptor
    are added by `dlp_plugins.network.Network`.

    A factory whose networks come with trained weights may have an attribute `view`, a function
    (of the member, for a family) that returns a `View`: `dlp embed` describes photos with it.

    num_features: number of features.
    mean, std: of each channel of uint8 images scaled to 0..1, where the weights were trained on
        inputs normalised by them: they are used in place of the data set's. Need not be there.
    """

    num_features: int
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None

    def __call__(self, inputs: Tensor) -> Tensor: ...


_later: ContextVar[bool] = ContextVar("weights_later", default=False)


@contextmanager
def weights_later() -> Iterator[None]:
    """Within it a backbone is built without its trained weights, as a run's own take their place.

    So nothing is downloaded, and no file is opened that the run's recipe names.
    """
    token = _later.set(True)
    try:
        yield
    finally:
        _later.reset(token)


def weights_come_later() -> bool:
    """Whether a factory may leave out to read weights."""
    return _later.get()


def normalization(backbone: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation that the backbone's weights were trained with, or None."""
    mean, std = getattr(backbone, "mean", None), getattr(backbone, "std", None)
    return None if mean is None or std is None else (mean, std)


def image_shape(name: str, input_shape: tuple[int, ...], smallest: int = 1) -> tuple[int, int, int]:
    """(channels, height, width), for a backbone of images.

    Raises:
        DataError: the inputs are vectors, or images of which a side is shorter than `smallest`.
    """
    if len(input_shape) != 3:
        raise DataError(
            f"backbone {name} takes images; these data are vectors of {input_shape[0]} numbers. "
            "Use backbone mlp."
        )
    channels, height, width = input_shape
    if min(height, width) < smallest:
        raise DataError(
            f"backbone {name} needs images of at least {smallest} x {smallest} pixels; these are "
            f"{height} x {width}."
        )
    return channels, height, width


def count_features(backbone: nn.Module, input_shape: tuple[int, ...]) -> int:
    """The number of features of a module, by one input of zeros.

    Raises:
        ValueError: the features are no vector; or whatever the module raises on such an input.
    """
    was_training = backbone.training
    backbone.eval()
    with torch.no_grad():
        features = backbone(torch.zeros(1, *input_shape))
    backbone.train(was_training)
    if features.ndim != 2:
        raise ValueError(f"its features are {list(features.shape[1:])}, not a vector")
    return features.shape[1]
