"""What a data set is: images of a training and a test split, with the labels that are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

UNKNOWN = -1


@dataclass(frozen=True)
class TensorImages:
    """Images that fit in memory.

    images: [n, channels, height, width] uint8.
    labels: [n] int64, -1 where the true class is not known.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)"""
        return tuple(self.images.shape[1:])  # type: ignore[return-value]


@dataclass(frozen=True)
class LazyImages:
    """Images that are read when they are needed, by the workers of a DataLoader.

    read: index to [channels, height, width] uint8; picklable; raises DataError on a bad file.
    labels: [n] int64, -1 where the true class is not known.
    shape: (channels, height, width), the same for every image.
    """

    read: Callable[[int], Tensor]
    labels: Tensor
    shape: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.labels)

    def load(self) -> TensorImages:
        """Read every image into memory."""
        return TensorImages(torch.stack([self.read(i) for i in range(len(self))]), self.labels)


Images = TensorImages | LazyImages


@dataclass(frozen=True)
class Dataset:
    """Two splits and what a network must know of them.

    mean, std: of each channel, for pixels scaled to 0..1.
    """

    train: Images
    test: Images
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def num_classes(self) -> int:
        return len(self.classes)
