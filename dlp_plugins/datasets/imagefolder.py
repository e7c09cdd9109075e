"""Your own images, a folder a class."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from dlp_plugins.datasets import _files
from dlp_plugins.datasets.contract import UNKNOWN, Dataset
from dlp_plugins.errors import DataError
from dlp_plugins.registry import datasets

Size = Annotated[int, Field(ge=4, le=1024, description="side that images are brought to, pixels")]
LAYOUT = (
    "Lay the images out as ROOT/train/<class>/*, ROOT/test/<class>/* and, without any label, "
    "ROOT/unlabeled/*; then --set dataset.root=ROOT."
)


@datasets.register("imagefolder")
def imagefolder(
    root: Annotated[str, Field(description="folder with train/, test/ and maybe unlabeled/")],
    image_size: Size = 32,
) -> Dataset:
    """Images in root/train/<class>/*, root/test/<class>/*, and root/unlabeled/* of unknown class.

    The shorter side is resized and the middle square kept. Mean and deviation are those of the
    training images. Unless `num_labeled` says otherwise, every image below train/ is labelled.

    Raises:
        DataError: a folder or a class is missing, or a file cannot be read as an image.
    """
    train, test = Path(root) / "train", Path(root) / "test"
    for split in (train, test):
        if not split.is_dir():
            raise DataError(f"dataset imagefolder: there is no folder {split}. {LAYOUT}")
    classes = [p.name for p in _files.class_folders(train)]
    if len(classes) < 2:
        raise DataError(
            f"dataset imagefolder: {train} has {len(classes)} class folders; a classifier needs "
            f"two. {LAYOUT}"
        )
    paths, labels = _files.list_split(train, classes, LAYOUT, "imagefolder")
    _files.refuse_empty_classes(labels, classes, train)
    unlabeled = Path(root) / "unlabeled"
    if unlabeled.is_dir():
        found = _files.list_images(unlabeled)
        paths, labels = [*paths, *found], [*labels, *[UNKNOWN] * len(found)]
    images = _files.images(paths, labels, image_size)
    mean, std = _files.channel_statistics(images)
    test_paths, test_labels = _files.list_split(test, classes, LAYOUT, "imagefolder")
    return Dataset(
        train=images,
        test=_files.images(test_paths, test_labels, image_size),
        classes=tuple(classes),
        mean=mean,
        std=std,
    )
