"""A small convolutional network for the embedded default: trains in seconds on a CPU."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import nn

from dlp_plugins.backbones.contract import image_shape
from dlp_plugins.registry import backbones


@backbones.register("small_cnn")
def small_cnn(
    input_shape: tuple[int, ...] = (3, 32, 32),
    width: Annotated[int, Field(ge=1, description="channels of the first block")] = 32,
    blocks: Annotated[int, Field(ge=1, le=5, description="each halves the image")] = 2,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
) -> nn.Module:
    """Blocks of two 3x3 convolutions with batch norm, ReLU and pooling; then a global average.

    Raises:
        DataError: vectors, or images of which a side is shorter than 2^blocks pixels.
    """
    layers: list[nn.Module] = []
    channels, _, _ = image_shape("small_cnn", input_shape, 2**blocks)
    for block in range(blocks):
        out = width * 2**block
        for _ in range(2):
            layers += [
                nn.Conv2d(channels, out, 3, padding=1, bias=False),
                nn.BatchNorm2d(out),
                nn.ReLU(inplace=True),
            ]
            channels = out
        layers += [nn.MaxPool2d(2), nn.Dropout(dropout)]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network.num_features = channels  # type: ignore[assignment]
    return network
