"""Measuring with a network: batches on a CPU shrink as images grow, and results stay in order."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dlp_plugins.datasets.contract import TensorImages
from dlp_plugins.network import Network, Output
from dlp_plugins.training import evaluate
from dlp_plugins.training.batches import ImageStore


class Brightness(nn.Module):
    num_features = 1

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        return images.float().mean(dim=(1, 2, 3))[:, None]


@pytest.mark.parametrize(
    ("side", "sizes"), [(2, [40]), (128, [32, 8]), (256, [16, 16, 8]), (300, [16, 16, 8])]
)
def test_large_images_are_described_in_smaller_batches(side: int, sizes: list[int]) -> None:
    images = torch.arange(40, dtype=torch.uint8)[:, None, None, None].expand(40, 3, side, side)
    store = ImageStore(TensorImages(images, torch.zeros(40).long()), torch.device("cpu"), 0)
    backbone = Brightness()
    network = Network(backbone, 2, normalize_descriptor=False)
    found = evaluate.describe(network, store, lambda x: x)
    assert backbone.sizes == sizes
    torch.testing.assert_close(found[:, 0], torch.arange(40.0))


class Falling(nn.Module):
    """Of 12 classes the first is always the most likely, then the second, and so on."""

    def forward(self, images: Tensor) -> Output:
        logits = -torch.arange(12.0).expand(len(images), 12)
        return Output(logits, logits, logits)


def test_the_best_five_hold_the_third_but_not_the_sixth() -> None:
    images = torch.zeros(5, 1, 2, 2, dtype=torch.uint8)
    store = ImageStore(TensorImages(images, torch.zeros(5).long()), torch.device("cpu"), 0)
    labels = torch.tensor([0, 2, 4, 5, -1])
    found = evaluate.errors(Falling(), store, labels, lambda x: x)
    assert found == {"error": 75.0, "error_top5": 25.0}
