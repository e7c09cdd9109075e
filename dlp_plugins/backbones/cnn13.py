"""The 13-layer network of the semi-supervised literature (Laine and Aila, 2017)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from dlp_plugins.backbones.contract import image_shape
from dlp_plugins.registry import backbones

# Two poolings halve the side, then a 3x3 convolution without padding takes two more pixels.
SMALLEST = 12


@backbones.register("cnn13")
class CNN13(nn.Module):
    """Nine weight-normalised convolutions, 128 features: the paper's network for 32x32 images.

    3x [3x3, 128], pool, dropout; 3x [3x3, 256], pool, dropout; 3x3, 512 without padding, 1x1, 256,
    1x1, 128; global average. Every convolution has a bias and is followed by batch norm and leaky
    ReLU. 'Thirteen layers' counts the poolings and the linear head too.

    Shapes: [b, 3, 32, 32] -> [b, 128, 16, 16] -> [b, 256, 8, 8] -> [b, 128, 6, 6] -> [b, 128].

    Raises:
        DataError: vectors, or images of which a side is shorter than 12 pixels.
    """

    num_features = 128

    def __init__(
        self,
        input_shape: tuple[int, ...] = (3, 32, 32),
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5,
        negative_slope: Annotated[float, Field(ge=0, description="of the leaky ReLU")] = 0.1,
    ) -> None:
        super().__init__()
        in_channels, _, _ = image_shape("cnn13", input_shape, SMALLEST)

        def block(channels: int, out: int, kernel: int, padding: int) -> list[nn.Module]:
            return [
                weight_norm(nn.Conv2d(channels, out, kernel, padding=padding)),
                nn.BatchNorm2d(out),
                nn.LeakyReLU(negative_slope, inplace=True),
            ]

        self.layers = nn.Sequential(
            *block(in_channels, 128, 3, 1),
            *block(128, 128, 3, 1),
            *block(128, 128, 3, 1),
            nn.MaxPool2d(2),
            nn.Dropout(dropout),
            *block(128, 256, 3, 1),
            *block(256, 256, 3, 1),
            *block(256, 256, 3, 1),
            nn.MaxPool2d(2),
            nn.Dropout(dropout),
            *block(256, 512, 3, 0),
            *block(512, 256, 1, 0),
            *block(256, 128, 1, 0),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)
