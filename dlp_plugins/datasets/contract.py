"""What a data set is: images of a training and a test split, with the labels that are known."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from dlp_plugins.errors import DataError, LabelError

UNKNOWN = -1
THREADS = 4  # decoding an image releases Python's lock
CHUNK = 64  # images a task


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
    """Images that are read when they are needed: once, where those a run uses fit in memory, else
    again and again by the workers of a DataLoader.

    read: index to [channels, height, width] uint8; picklable; raises DataError on a bad file.
    labels: [n] int64, -1 where the true class is not known.
    shape: (channels, height, width), the same for every image.
    """

    read: Callable[[int], Tensor]
    labels: Tensor
    shape: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def nbytes(self) -> int:
        """Memory that all of them take."""
        return len(self) * math.prod(self.shape)

    def load(self) -> TensorImages:
        """Read every image into memory, by a few threads."""
        images = torch.empty(len(self), *self.shape, dtype=torch.uint8)

        def fill(start: int) -> None:
            for i in range(start, min(start + CHUNK, len(self))):
                images[i] = self.read(i)

        with ThreadPoolExecutor(THREADS) as pool:
            for _ in pool.map(fill, range(0, len(self), CHUNK)):
                pass
        return TensorImages(images, self.labels)


Images = TensorImages | LazyImages


@dataclass(frozen=True)
class Dataset:
    """Two splits and what a network must know of them.

    mean, std: of each channel, for pixels scaled to 0..1.

    Raises:
        DataError: no image, fewer than two classes, or mean and std of other channels.
        LabelError: a label out of range, or a test image without one.
    """

    train: Images
    test: Images
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise DataError(f"The data have {self.num_classes} classes; a classifier needs two.")
        channels = self.train.shape[0]
        if len(self.mean) != channels or len(self.std) != channels or min(self.std) <= 0:
            raise DataError(
                f"The images have {channels} channels: mean and std must be as many numbers, std "
                f"above 0; found mean {list(self.mean)}, std {list(self.std)}."
            )
        for name, split in (("training", self.train), ("test", self.test)):
            if len(split) == 0:
                raise DataError(f"The {name} split holds no image.")
            check_range(split.labels, self.num_classes, name)
        if unlabeled := int((self.test.labels == UNKNOWN).sum()):
            raise LabelError(
                f"{unlabeled} of {len(self.test)} test images have no label, so no error can be "
                "measured on them. Take another split for the test."
            )

    @property
    def num_classes(self) -> int:
        return len(self.classes)


def check_range(labels: Tensor, num_classes: int, split: str = "training") -> None:
    """Raise LabelError unless all labels are -1 or classes 0..num_classes - 1."""
    bad = (labels < UNKNOWN) | (labels >= num_classes)
    if bad.any():
        at = int(bad.nonzero()[0])
        raise LabelError(
            f"Label {int(labels[at])} of {split} image {at} is outside 0..{num_classes - 1} "
            f"({int(bad.sum())} such; -1 means unknown)."
        )
