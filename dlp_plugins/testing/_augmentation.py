"""check_augmentation: views of the examples' shape, each example's drawn by torch's generator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dlp_plugins.augmentations.contract import Augmentation
from dlp_plugins.registry import augmentations
from dlp_plugins.testing._common import built, require, require_tensor

EXAMPLES = 12


def check_augmentation(
    augmentation: str | Augmentation,
    *,
    input_shape: tuple[int, ...] = (3, 16, 16),
    **parameters: Any,
) -> None:
    """Check an augmentation: form of the views, their random numbers, examples left as they are.

    Args:
        input_shape: (channels, height, width) of images, or (d,) of vectors.

    Raises:
        AssertionError: the sentence says what is wrong.
    """
    if isinstance(augmentation, str):
        channels = input_shape[0]
        parameters = {"mean": (0.4,) * channels, "std": (0.2,) * channels, **parameters}
    made: Augmentation = built(augmentations, augmentation, parameters)
    where = type(made).__name__
    examples = torch.rand(EXAMPLES, *input_shape, generator=torch.Generator().manual_seed(0))
    batches = {"float32": examples}
    if len(input_shape) == 3:
        pixels = (255 * examples).to(torch.uint8)
        batches["uint8"] = pixels
        batches["channels-last uint8"] = pixels.contiguous(memory_format=torch.channels_last)
    for kind, batch in batches.items():
        for view in (made.plain, made.weak, made.strong):
            _check_view(view, batch, f"{where}.{view.__name__} of {kind}")
        plain, what = made.plain(batch), f"{where}.plain of {kind}"
        require(torch.equal(plain, made.plain(batch)), f"{what}: two calls give two views")
        alone = torch.cat([made.plain(batch[i : i + 1]) for i in range(EXAMPLES)])
        require(torch.allclose(alone, plain), f"{what}: a view depends on the other examples")
        for view in (made.weak, made.strong):
            _check_drawn(view, made.plain, batch, f"{where}.{view.__name__} of {kind}")


def _check_view(view: Callable[[Tensor], Tensor], batch: Tensor, where: str) -> None:
    before = batch.clone()
    torch.manual_seed(0)
    found = require_tensor(view(batch), tuple(batch.shape), f"{where}: the view")
    require(torch.equal(batch, before), f"{where}: it changes the examples it is given")
    torch.manual_seed(0)
    require(
        torch.equal(view(batch), found),
        f"{where}: after torch.manual_seed two views differ; draw from torch's global generator",
    )
    if batch.ndim == 4 and not batch.is_contiguous():
        require(
            found.is_contiguous(memory_format=torch.channels_last),
            f"{where}: the view must keep the memory format",
        )


def _check_drawn(
    view: Callable[[Tensor], Tensor], plain: Callable[[Tensor], Tensor], batch: Tensor, where: str
) -> None:
    """A view that changes anything changes it another way for each example and at each call."""
    same = batch[:1].expand(EXAMPLES, *batch.shape[1:]).contiguous()
    torch.manual_seed(0)
    found = view(same)
    if torch.equal(found, plain(same)):
        return
    require(
        not torch.equal(found, found[:1].expand_as(found)),
        f"{where}: every example must draw its own view",
    )
    require(not torch.equal(view(same), found), f"{where}: a second call gives the same view")
