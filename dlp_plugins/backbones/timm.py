"""Any model of PyTorch Image Models: `timm:resnet18`, `timm:vit_tiny_patch16_224`, ..."""

from __future__ import annotations

from typing import Annotated, Any

import timm
from pydantic import Field
from torch import nn

from dlp_plugins.errors import DataError
from dlp_plugins.registry import backbones


def build(
    member: str,
    in_channels: int = 3,
    image_size: int = 32,
    pretrained: Annotated[
        bool, Field(description="start from timm's weights (downloaded)")
    ] = False,
    weights_file: Annotated[
        str | None, Field(description="start from weights in this file, without a network")
    ] = None,
) -> nn.Module:
    """A timm model without its classifier; its pooled features are the descriptor.

    The number of input channels is the data set's; a model of a fixed image size, such as a vision
    transformer, is built for that of the data set.

    Raises:
        DataError: weights cannot be fetched or read, or the model does not take such images.
    """
    options: dict[str, Any] = {"in_chans": in_channels, "num_classes": 0}
    known = timm.models.get_pretrained_cfg(member)
    if known is not None and known.fixed_input_size:
        options["img_size"] = image_size
    if weights_file is not None:
        pretrained, options["pretrained_cfg_overlay"] = True, {"file": weights_file}
    try:
        network = timm.create_model(member, pretrained=pretrained, **options)
    except Exception as error:  # timm and its hub client raise many kinds
        raise DataError(_explain(member, pretrained, weights_file, image_size, error)) from error
    # what comes out of the pooling, which some models widen before their classifier
    network.num_features = network.head_hidden_size
    return network


def _explain(
    member: str, pretrained: bool, weights_file: str | None, image_size: int, error: Exception
) -> str:
    reason = f"({type(error).__name__}: {str(error).partition(chr(10))[0]})"
    if weights_file is not None:
        return (
            f"backbone timm:{member}: the weights in {weights_file} cannot be used {reason}. "
            "Give a file saved for this model, or leave out backbone.weights_file."
        )
    if pretrained:
        return (
            f"backbone timm:{member}: its weights could not be downloaded {reason}. Without a "
            "network: fetch them elsewhere and set backbone.weights_file=FILE, or train from "
            "scratch with backbone.pretrained=false."
        )
    return f"backbone timm:{member} cannot be built for images of {image_size} pixels {reason}."


build.members = timm.list_models  # type: ignore[attr-defined]
backbones.register("timm", family=True)(build)
