"""ResNet-18 (He et al., 2016) as the paper uses it for 84x84 Mini-ImageNet."""

from __future__ import annotations

from torch import nn
from torchvision.models import resnet18 as torchvision_resnet18

from dlp_plugins.backbones.contract import image_shape
from dlp_plugins.registry import backbones


@backbones.register("resnet18")
def resnet18(input_shape: tuple[int, ...] = (3, 84, 84)) -> nn.Module:
    """ResNet-18 with its ImageNet stem (7x7 stride 2, pool), untrained; 512 features.

    The authors' network is this one, without a smaller stem for 84x84 images. For pretrained
    weights use `timm:resnet18`.

    Raises:
        DataError: vectors.
    """
    in_channels, _, _ = image_shape("resnet18", input_shape)
    network = torchvision_resnet18(weights=None)
    if in_channels != 3:
        network.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.num_features = network.fc.in_features  # type: ignore[assignment]
    network.fc = nn.Identity()  # type: ignore[assignment]
    return network
