"""The network in training: a backbone, its descriptor, and one or two linear heads.

Handled once here, so that no backbone has to: the L2-normalised descriptor (Iscen et al., section
4) and the heads for the data set's classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple, Self

import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrizations import weight_norm

from dlp_plugins.errors import ComponentError

WeightNormHeads = Literal["none", "both", "second"]


FROZEN = "frozen_batch_norms"  # attribute of such a backbone


def freeze_batch_norms(backbone: nn.Module) -> None:
    """Let the batch norms of a network's backbone keep their weights and statistics, in place.

    They stay torch's own layers: timm's frozen ones compute in float32 under autocast, and a
    pretrained network then takes two to three times as long on a CPU.
    """
    setattr(backbone, FROZEN, True)
    for norm in _batch_norms(backbone):
        norm.requires_grad_(False)


def _fits(features: object, length: int) -> bool:
    """Whether these are feature vectors [b, length]."""
    return (
        isinstance(features, Tensor)
        and features.shape[1:] == (length,)
        and features.is_floating_point()
    )


def _batch_norms(backbone: nn.Module) -> Iterator[nn.Module]:
    return (module for module in backbone.modules() if isinstance(module, _BatchNorm))


class Output(NamedTuple):
    """The network's output for a batch of b images.

    logits: [b, c].
    consistency_logits: [b, c] of the second head; the same tensor as `logits` with one head.
    descriptor: [b, d], L2-normalised where the network is told to.
    """

    logits: Tensor
    consistency_logits: Tensor
    descriptor: Tensor


class Network(nn.Module):
    """Backbone, then descriptor, then heads.

    Args:
        backbone: inputs, [b, channels, height, width] or [b, n], to features [b, d]; has
            `num_features` = d.
        num_classes: c.
        heads: 2 gives Mean Teacher a head of its own for the consistency loss.
        normalize_descriptor: L2-normalise before the linear layer (the paper does so without Mean
            Teacher, and not with it).
        weight_norm_heads: which heads learn the length and direction of each class's weights apart
            (weight normalisation): "both", "second" (the consistency head, where there is one) or
            "none". In the authors' code: both of the 13-layer network, the second of ResNet.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        heads: int = 1,
        normalize_descriptor: bool = True,
        weight_norm_heads: WeightNormHeads = "none",
    ) -> None:
        super().__init__()
        if not isinstance(features := getattr(backbone, "num_features", None), int):
            raise ComponentError(
                f"backbone {type(backbone).__name__}: num_features must be the length of a feature "
                f"vector; found {features!r}."
            )
        self.backbone = backbone
        self.normalize_descriptor = normalize_descriptor
        self.head = nn.Linear(features, num_classes)
        self.consistency_head = nn.Linear(features, num_classes) if heads == 2 else None
        if weight_norm_heads == "both":
            weight_norm(self.head)
        if weight_norm_heads != "none" and self.consistency_head is not None:
            weight_norm(self.consistency_head)

    def train(self, mode: bool = True) -> Self:
        """As of any module, but frozen batch norms stay in evaluation mode."""
        super().train(mode)
        if getattr(self.backbone, FROZEN, False):
            for norm in _batch_norms(self.backbone):
                norm.eval()
        return self

    def describe(self, images: Tensor) -> Tensor:
        """Descriptors [b, d] of images [b, channels, height, width]."""
        descriptor = self.backbone(images)
        if not _fits(descriptor, self.head.in_features):
            found = type(descriptor).__name__
            if isinstance(descriptor, Tensor):
                found = f"{list(descriptor.shape)} {descriptor.dtype}"
            raise ComponentError(
                f"backbone {type(self.backbone).__name__}: it must return features "
                f"[{len(images)}, {self.head.in_features}] (num_features); found {found}."
            )
        return F.normalize(descriptor, dim=1) if self.normalize_descriptor else descriptor

    def forward(self, images: Tensor) -> Output:
        descriptor = self.describe(images)
        logits = self.head(descriptor)
        if self.consistency_head is None:
            return Output(logits, logits, descriptor)
        return Output(logits, self.consistency_head(descriptor), descriptor)
