"""Which parameters an optimizer treats alike: groups with a learning rate and weight decay each."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from torch import nn

from dlp_plugins.errors import UsageError
from dlp_plugins.network import Network
from dlp_plugins.recipe.model import OptimizerPart


def parameter_groups(network: Network, part: OptimizerPart) -> list[dict[str, Any]]:
    """Groups for an optimizer: "params", "rate" (a factor of the learning rate), "weight_decay".

    By default there is one group of all parameters. A group has "weight_decay" only where its own
    differs from the optimizer's.

    Raises:
        UsageError: layer-wise decay of a backbone that does not say which layers it has.
    """
    rates = _layer_rates(network.backbone, part.layer_decay) if part.layer_decay else {}
    groups: dict[tuple[float, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        in_backbone = name.startswith("backbone.")
        rate = part.backbone_rate * rates.get(name, 1.0) if in_backbone else 1.0
        decays = part.decay_norms_and_biases or parameter.ndim > 1
        groups[rate, decays].append(parameter)
    return [
        {"params": parameters, "rate": rate, **({} if decays else {"weight_decay": 0.0})}
        for (rate, decays), parameters in groups.items()
    ]


def _layer_rates(backbone: nn.Module, decay: float) -> dict[str, float]:
    """decay^(layers above) of each parameter of the backbone, by timm's own order of layers."""
    from timm.models import group_parameters

    matcher: Any = getattr(backbone, "group_matcher", None)
    if matcher is None:
        raise UsageError(
            "optimizer.layer_decay: this backbone does not say which layers it has. Take a timm "
            "backbone, or set optimizer.backbone_rate instead."
        )
    layers = group_parameters(backbone, matcher(coarse=False), reverse=True)
    top = max(layers.values()) + 1  # the heads' layer, on top of the backbone's
    return {f"backbone.{name}": decay ** (top - layer) for name, layer in layers.items()}
