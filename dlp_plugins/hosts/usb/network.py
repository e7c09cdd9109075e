"""A USB network with what label propagation asks of it: descriptor, and heads on it."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from dlp_plugins.errors import PluginError


class DescriptorNet(nn.Module):
    """A USB backbone whose `feat` is the descriptor, L2-normalised before the classifier if asked.

    Args:
        base: one of USB's networks; its own classifier is kept.
        normalize: as the paper does without Mean Teacher (Iscen et al., section 4).
        two_heads: a second classifier for a consistency loss, `consistency_logits`.
    """

    def __init__(self, base: nn.Module, normalize: bool, two_heads: bool = False) -> None:
        super().__init__()
        self.backbone = base
        self.normalize = normalize
        self.num_features = int(base.num_features)  # type: ignore[arg-type]
        classes = classifier(base).out_features
        self.consistency_head = nn.Linear(self.num_features, classes) if two_heads else None

    def forward(
        self, x: Tensor, only_fc: bool = False, only_feat: bool = False, **_: Any
    ) -> Tensor | dict[str, Tensor]:
        """Images [b, channels, h, w] to USB's dictionary; the two flags are USB's as well."""
        classify = classifier(self.backbone)
        if only_fc:
            return classify(x)
        feat = self.backbone(x, only_feat=True)
        if self.normalize:
            feat = F.normalize(feat, dim=1)
        if only_feat:
            return feat
        output = {"logits": classify(feat), "feat": feat}
        if self.consistency_head is not None:
            output["consistency_logits"] = self.consistency_head(feat)
        return output

    def group_matcher(self, coarse: bool = False) -> Any:
        """For USB's layer-wise learning rates."""
        return self.backbone.group_matcher(coarse, prefix="backbone.")  # type: ignore[operator]

    def no_weight_decay(self) -> list[str]:
        """For USB's optimiser: the backbone's exceptions."""
        names: list[str] = getattr(self.backbone, "no_weight_decay", list)()
        return [f"backbone.{name}" for name in names]


def classifier(base: nn.Module) -> nn.Linear:
    """The linear layer of a USB network.

    Not its `only_fc`: resnet50's asks for an attribute that it does not have.
    """
    for name in ("classifier", "head"):
        if isinstance(layer := getattr(base, name, None), nn.Linear):
            return layer
    raise PluginError(
        f"{type(base).__name__} has no linear 'classifier' or 'head': label propagation inside USB "
        "takes USB's image networks (net: wrn_28_2, resnet50, vit_...), with net_from_name: False."
    )
