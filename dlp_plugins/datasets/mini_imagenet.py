"""Mini-ImageNet, 84x84, from a folder: it has no official download."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from dlp_plugins.datasets.contract import Dataset
from dlp_plugins.datasets.imagefolder import imagefolder
from dlp_plugins.errors import DataError
from dlp_plugins.registry import datasets

SIDE, CLASSES = 84, 100
MEAN = (0.4721, 0.4533, 0.4100)
STD = (0.2772, 0.2677, 0.2845)
LAYOUT = (
    "Mini-ImageNet has no official download. Take its 100 classes of ImageNet, 600 images each "
    "(Ravi and Larochelle, 2017), and lay them out as ROOT/train/<class>/*, 500 each, and "
    "ROOT/test/<class>/*, 100 each (Iscen et al., 2019, section 5.1); then --set dataset.root=ROOT."
)


@datasets.register("mini_imagenet")
def mini_imagenet(
    root: Annotated[str, Field(description="folder with train/<class>/* and test/<class>/*")] = (
        "data/mini_imagenet"
    ),
) -> Dataset:
    """Mini-ImageNet: 50,000 training and 10,000 test images of 84x84, 100 classes.

    root/train/<class>/* holds 500 images of each class, root/test/<class>/* the other 100.

    Raises:
        DataError: the folder is missing or holds other than 100 classes; says how to lay it out.
    """
    for split in ("train", "test"):
        if not (Path(root) / split).is_dir():
            raise DataError(f"dataset mini_imagenet: there is no folder {root}/{split}. {LAYOUT}")
    found = imagefolder(root, SIDE)
    if found.num_classes != CLASSES:
        raise DataError(
            f"dataset mini_imagenet: {root}/train has {found.num_classes} classes, not {CLASSES}. "
            f"{LAYOUT} Other images: dataset imagefolder."
        )
    return replace(found, mean=MEAN, std=STD)
