"""USB's image data sets: `dataset = { name = "usb:eurosat", root = "data" }`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from dlp_plugins.datasets.contract import Dataset, Images, LazyImages, TensorImages
from dlp_plugins.errors import DataError
from dlp_plugins.registry import datasets

# name: classes, side of the images. docs/usb.md says why each of USB's others is left out.
MEMBERS = {
    "cifar10": (10, 32),
    "cifar100": (100, 32),
    "eurosat": (10, 32),
    "imagenet": (1000, 224),
    "svhn": (10, 32),
    "tissuemnist": (8, 32),
}


@datasets.register("usb", requires=("semilearn",), extra="usb", family=True)
def usb(
    member: str,
    root: Annotated[str, Field(description="USB's data_dir")] = "data",
    image_size: Annotated[
        int | None, Field(ge=8, description="side of the images; by default as in USB's configs")
    ] = None,
    num_classes: Annotated[
        int | None, Field(ge=2, description="where a folder holds only some of the classes")
    ] = None,
) -> Dataset:
    """USB's image data sets, read or downloaded by its own code into its own folders.

    All training images with their labels, USB's evaluation set as the test set, its mean and
    standard deviation. Which images count as labelled is this project's choice, as everywhere.

    Raises:
        DataError: the data are not there, or not readable.
    """
    from dlp_plugins.datasets import _usb

    classes, side = MEMBERS[member]
    try:
        train, test = _usb.load(member, root, image_size or side, num_classes or classes)
    except (OSError, RuntimeError, ValueError, AssertionError) as error:
        raise DataError(
            f"dataset usb:{member}: USB cannot read it under '{root}' "
            f"({type(error).__name__}: {error}). USB's own documentation says where its files go."
        ) from error
    mean, std, geometry = _usb.normalization(test)
    splits = [_images(split, geometry, image_size or side) for split in (train, test)]
    found = int(max(int(s.labels.max()) for s in splits)) + 1
    names = getattr(train, "classes", None) or [str(i) for i in range(found)]
    return Dataset(splits[0], splits[1], tuple(names), mean, std)


usb.members = lambda: list(MEMBERS)  # type: ignore[attr-defined]


def _images(split: Any, geometry: Any, side: int) -> Images:
    labels = _labels(split)
    pixels = split.data
    if isinstance(pixels, np.ndarray) and pixels.shape[1:] == (side, side, 3):
        return TensorImages(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), labels)
    return LazyImages(_Reader(split, geometry), labels, (3, side, side))


def _labels(split: Any) -> Tensor:
    if hasattr(split, "idx_list"):
        # EuroSat's own `targets` are not in the order of its images once some are chosen.
        return torch.tensor([split.samples[i][1] for i in split.idx_list])
    return torch.as_tensor(np.asarray(split.targets)).long()


@dataclass(frozen=True)
class _Reader:
    """One image of a USB data set as uint8, resized and cropped as USB does for evaluation."""

    split: Any
    geometry: Any

    def __call__(self, index: int) -> Tensor:
        from torchvision.transforms.functional import pil_to_tensor, to_pil_image

        try:
            image, _ = self.split.__sample__(index)
        except OSError as error:
            raise DataError(
                f"{type(self.split).__name__}: image {index} cannot be read: {error}"
            ) from None
        if isinstance(image, np.ndarray):
            image = to_pil_image(image)
        return pil_to_tensor(self.geometry(image))
