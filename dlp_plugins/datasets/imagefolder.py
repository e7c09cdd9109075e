"""Your own images, a folder a class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from dlp_plugins.datasets import _files
from dlp_plugins.datasets._files import Size, Unreadable
from dlp_plugins.datasets._statistics import measure
from dlp_plugins.datasets.contract import UNKNOWN, Dataset
from dlp_plugins.errors import DataError
from dlp_plugins.registry import datasets

LAYOUT = (
    "Lay the images out as ROOT/train/<class>/*, if you like ROOT/test/<class>/*, and without any "
    "label ROOT/unlabeled/*; then --set dataset.root=ROOT."
)


@datasets.register("imagefolder")
def imagefolder(
    root: Annotated[str, Field(description="folder with train/, test/ and maybe unlabeled/")],
    image_size: Size = 32,
    test_share: Annotated[
        float,
        Field(ge=0, lt=1, description="where test/ is missing: share of train/ kept for the test"),
    ] = 0.0,
    unreadable: Unreadable = "stop",
) -> Dataset:
    """Images in root/train/<class>/*, root/test/<class>/*, and root/unlabeled/* of unknown class.

    Without root/test a share of each class is kept for the test, always the same images; with
    test_share = 0 there is no test error.

    The largest middle part of the proportions of image_size is kept and resized. Mean and deviation
    are those of the training images. Unless `num_labeled` says otherwise, every image below train/
    is labelled. Files whose ending is not an image's are left out with a warning.

    Raises:
        DataError: a folder or a class is missing, or files cannot be read as images: all are named.
    """
    train, test = Path(root) / "train", Path(root) / "test"
    if not train.is_dir():
        raise DataError(f"dataset imagefolder: there is no folder {train}. {LAYOUT}")
    classes = [p.name for p in _files.class_folders(train)]
    if len(classes) < 2:
        raise DataError(
            f"dataset imagefolder: {train} has {len(classes)} class folders; a classifier needs "
            f"two. {LAYOUT}"
        )
    left_out: Counter[str] = Counter()
    paths, labels = _files.list_split(train, classes, LAYOUT, "imagefolder", left_out)
    _files.refuse_empty_classes(labels, classes, train)
    test_paths: list[Path] = []
    test_labels: list[int] = []
    if test.is_dir():
        test_paths, test_labels = _files.list_split(test, classes, LAYOUT, "imagefolder", left_out)
    elif test_share:
        held = hold_out(labels, test_share)
        test_paths, test_labels = [paths[i] for i in held], [labels[i] for i in held]
        kept = sorted({*range(len(paths))} - {*held})
        paths, labels = [paths[i] for i in kept], [labels[i] for i in kept]
    unlabeled = Path(root) / "unlabeled"
    if unlabeled.is_dir():
        found = _files.list_images(unlabeled, left_out)
        paths, labels = [*paths, *found], [*labels, *[UNKNOWN] * len(found)]
    _files.warn_of_left_out(Path(root), left_out)
    size = _files.height_and_width(image_size)
    skip = unreadable == "skip"
    images = _files.images(paths, labels, size, skip)
    try:
        mean, std = measure(images)
    except DataError as error:  # the unreadable images of both splits in one list
        both = _files.images([*paths, *test_paths], [*labels, *test_labels], size)
        raise both.explain_unreadable(error) from error
    return Dataset(
        train=images,
        test=_files.images(test_paths, test_labels, size, skip) if test_paths else None,
        classes=tuple(classes),
        mean=mean,
        std=std,
        files=tuple(path.relative_to(root).as_posix() for path in paths),
    )


def hold_out(labels: Sequence[int], share: float) -> list[int]:
    """Positions of a share of each class, at least one and never all; always the same ones."""
    held: list[int] = []
    known = np.asarray(labels)
    for label in np.unique(known):
        own = np.flatnonzero(known == label)
        count = min(max(1, round(share * len(own))), len(own) - 1)
        held += np.random.default_rng(int(label)).permutation(own)[:count].tolist()
    return sorted(held)
