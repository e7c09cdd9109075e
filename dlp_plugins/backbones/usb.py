"""USB's image networks as backbones: `backbone = { name = "usb:wrn_28_2" }`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from dlp_plugins._semilearn import require
from dlp_plugins.backbones.contract import image_shape
from dlp_plugins.errors import PluginError
from dlp_plugins.registry import backbones

# name: the image size that it takes, None for any
MEMBERS = {
    "resnet50": None,
    "vit_base_patch16_224": 224,
    "vit_base_patch16_96": 96,
    "vit_small_patch16_224": 224,
    "vit_small_patch2_32": 32,
    "vit_tiny_patch2_32": 32,
    "wrn_28_2": None,
    "wrn_28_8": None,
    "wrn_var_37_2": None,
}


class UsbBackbone(nn.Module):
    """A USB network up to its pooled features, for colour or grey images."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.num_features = int(net.num_features)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        # USB's networks take three channels; a grey image is shown three times.
        return self.net(images.expand(-1, 3, -1, -1), only_feat=True)


@backbones.register("usb", requires=("semilearn",), extra="usb", family=True)
def usb(
    member: str,
    input_shape: tuple[int, ...] = (3, 32, 32),
    batch_norm_momentum: Annotated[
        float | None,
        Field(gt=0, le=1, description="of every batch norm; by default the network's own"),
    ] = None,
) -> nn.Module:
    """USB's image networks, freshly initialised.

    Its wide ResNets average batch statistics with momentum 0.001: in a run of fewer than a few
    thousand steps set `batch_norm_momentum = 0.1`, or evaluation sees statistics not yet settled.

    Raises:
        PluginError: the images have other than 1 or 3 channels, or not the network's size.
        DataError: vectors.
    """
    in_channels, height, width = image_shape(f"usb:{member}", input_shape)
    if in_channels not in (1, 3):
        raise PluginError(
            f"backbone usb:{member} takes images of 1 or 3 channels; these have {in_channels}."
        )
    size = MEMBERS[member]
    if size and (height, width) != (size, size):
        raise PluginError(
            f"backbone usb:{member} takes images of {size}x{size}; these are {height}x{width}."
        )
    net = image_network(member)
    for module in net.modules():
        if batch_norm_momentum is not None and isinstance(module, nn.BatchNorm2d):
            module.momentum = batch_norm_momentum
    return UsbBackbone(net)


def image_network(name: str) -> nn.Module:
    """One of USB's image networks by name, without its classifier."""
    require()
    from semilearn import nets

    network = getattr(nets, name)(num_classes=2)
    for layer in ("classifier", "head"):
        if hasattr(network, layer):
            # Left in place it would have weights that never get a gradient.
            setattr(network, layer, nn.Identity())
    return network


usb.members = lambda: list(MEMBERS)  # type: ignore[attr-defined]
