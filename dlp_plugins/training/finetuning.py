"""Which weights of a pretrained backbone are trained: all, none, adapters, or the last layers."""

from __future__ import annotations

from typing import Any

from torch import nn

from dlp_plugins.component import install_command
from dlp_plugins.errors import MissingDependency, UsageError
from dlp_plugins.network import freeze_batch_norms
from dlp_plugins.recipe.model import BackbonePart

ADAPTED = (nn.Linear, nn.Conv2d)


def restrict(backbone: nn.Module, part: BackbonePart) -> None:
    """Freeze what the recipe does not train, in place. The heads always learn.

    Where anything is frozen, batch norms keep their weights and statistics: few labelled images
    estimate them badly.

    Raises:
        UsageError: the backbone has no order of layers, or no layer that takes an adapter.
        MissingDependency: adapters without the library peft.
    """
    if part.trains == "all":
        return
    layers = _top_layers(backbone, part) if part.trains == "last_layers" else set()
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(name in layers)
    freeze_batch_norms(backbone)
    if part.trains == "adapters":
        _add_adapters(backbone, part.adapter_rank)


def _top_layers(backbone: nn.Module, part: BackbonePart) -> set[str]:
    """Names of the parameters in the last layers, by timm's own order of blocks."""
    from timm.models import group_parameters

    matcher: Any = getattr(backbone, "group_matcher", None)
    if matcher is None:
        raise UsageError(
            f"backbone.trains = last_layers: backbone {part.name} does not say which layers it "
            "has. Take a timm backbone or imagenet-lite, or backbone.trains = none."
        )
    layers: dict[str, int] = group_parameters(backbone, matcher(coarse=True), reverse=True)
    last = sorted(set(layers.values()))[-part.last_layers :]
    return {name for name, layer in layers.items() if layer in last}


def _add_adapters(backbone: nn.Module, rank: int) -> None:
    """LoRA (Hu and others, ICLR 2022): W + B A, of which A and B of that rank learn."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingDependency(
            f"backbone.trains = adapters needs the library peft: {install_command('adapters')}"
        ) from error
    # Convolutions of several groups mix few channels; a product of low rank gains nothing there.
    # A subclass computes in a way of its own, which an adapter would not follow: timm's "same"
    # convolutions pad by the image's size.
    names = [
        name
        for name, module in backbone.named_modules()
        if type(module) in ADAPTED and getattr(module, "groups", 1) == 1
    ]
    if not names:
        raise UsageError("backbone.trains = adapters: the backbone has no layer for an adapter.")
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names), backbone)
