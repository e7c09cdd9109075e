"""Any model of PyTorch Image Models: `timm:resnet18`, `timm:vit_tiny_patch16_224`, ..."""

from __future__ import annotations

import sys
from functools import cache
from typing import Annotated, Any

import timm
import timm.data
from pydantic import Field
from torch import nn

from dlp_plugins.backbones.contract import (
    View,
    count_features,
    image_shape,
    weights_come_later,
)
from dlp_plugins.errors import DataError
from dlp_plugins.registry import backbones


def build(
    member: str,
    input_shape: tuple[int, ...] = (3, 32, 32),
    pretrained: Annotated[
        bool, Field(description="start from timm's weights (downloaded)")
    ] = False,
    weights_file: Annotated[
        str | None, Field(description="start from weights in this file, without a network")
    ] = None,
) -> nn.Module:
    """A timm model without its classifier; its pooled features are the descriptor.

    The number of input channels is the data set's; a model of a fixed image size, such as a vision
    transformer, is built for that of the data set. With weights, images are normalised by the mean
    and standard deviation that these were trained with, not by the data set's.

    Raises:
        DataError: weights cannot be fetched or do not fit, or the model does not take such images.
    """
    channels, *size = image_shape(f"timm:{member}", input_shape)
    options: dict[str, Any] = {"in_chans": channels, "num_classes": 0}
    known = timm.models.get_pretrained_cfg(member)
    if known is not None and known.fixed_input_size:
        options["img_size"] = tuple(size)
    try:
        wanted = not weights_come_later()
        fetched = pretrained and not weights_file and wanted
        network = timm.create_model(member, pretrained=fetched, **options)
        if weights_file is not None and wanted:
            _load(network, weights_file)
    except Exception as error:  # timm and its hub client raise many kinds
        raise DataError(_explain(member, pretrained, weights_file, size, error)) from error
    try:
        features = count_features(network, input_shape)
    except Exception as error:
        raise DataError(_explain(member, False, None, size, error)) from error
    network.num_features = features  # type: ignore[assignment]
    if pretrained or weights_file is not None:
        _set_normalization(network, channels)
    return network


def _load(network: nn.Module, weights_file: str) -> None:
    # Each family of models renames and resizes its published weights by a function of its own.
    adapt = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    keys = timm.models.load_checkpoint(
        network, weights_file, strict=False, filter_fn=adapt, weights_only=True
    )
    # The classifier that the file has and the network has not is no loss; the reverse would be.
    if missing := keys.missing_keys:
        total = len(network.state_dict())
        raise ValueError(f"{len(missing)} of its {total} tensors are not there, {missing[0]} first")


def _set_normalization(network: nn.Module, channels: int) -> None:
    """Set the mean and deviation that the weights were trained with, in the contract's attributes.

    One channel gets the averages over the colors, as timm gives it the sum of their weights. For
    other numbers of channels nothing is published.
    """
    config = timm.data.resolve_model_data_config(network)
    mean, std = tuple(config["mean"]), tuple(config["std"])
    if channels == 1:
        mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
    if len(mean) == channels:
        network.mean, network.std = mean, std  # type: ignore[assignment]


def _explain(
    member: str, pretrained: bool, weights_file: str | None, size: list[int], error: Exception
) -> str:
    reason = f"({type(error).__name__}: {str(error).partition(chr(10))[0]})"
    if weights_file is not None:
        return (
            f"backbone timm:{member}: the weights in {weights_file} cannot be used {reason}. "
            "Give a file saved for this model, or leave out backbone.weights_file."
        )
    if pretrained and not timm.is_model_pretrained(member):
        return f"backbone timm:{member} has no weights. Set backbone.pretrained=false."
    if pretrained:
        return (
            f"backbone timm:{member}: its weights could not be downloaded {reason}. Without a "
            "network: take backbone imagenet-lite, whose weights are a Python package; or fetch "
            f"them elsewhere{_command(member)} and set backbone.weights_file=FILE, "
            "or copy the cache that HF_HOME names; or train from scratch with "
            "backbone.pretrained=false."
        )
    return (
        f"backbone timm:{member} does not take images of {size[0]} x {size[1]} pixels {reason}. "
        "Choose another model, or larger images."
    )


def _command(member: str) -> str:
    known = timm.models.get_pretrained_cfg(member)
    hub = known.hf_hub_id if known else None
    return f" (`hf download {hub} model.safetensors`)" if hub else ""


@cache
def members() -> list[str]:
    """Every architecture, and every `architecture.tag` that names one of its weights."""
    return sorted({*timm.list_models(), *timm.list_models(pretrained=True)})


def view(member: str) -> View:
    """Size and interpolation that the model's published weights were tested with."""
    known = timm.models.get_pretrained_cfg(member)
    if known is None:
        return View(224, "bicubic")
    mode = "bilinear" if known.interpolation == "bilinear" else "bicubic"
    return View(known.input_size[-1], mode)


build.view = view  # type: ignore[attr-defined]
build.members = members  # type: ignore[attr-defined]
backbones.register("timm", family=True)(build)
