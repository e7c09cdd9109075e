"""CIFAR-10 and CIFAR-100 from torchvision's files or Parquet files, normalised alike."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

from pydantic import Field
from torchvision.datasets import CIFAR10

from dlp_plugins.datasets import _encoded, _parquet
from dlp_plugins.datasets import _torchvision as tv
from dlp_plugins.datasets.contract import Dataset
from dlp_plugins.errors import DataError

# CIFAR-10's, as published; the paper uses them for CIFAR-100 too.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)
SIZE = (32, 32)
PARQUET = " Parquet files of it are read from --set dataset.path=FOLDER."

Path = Annotated[
    str | None,
    Field(description="folder of train-*.parquet and test-*.parquet; used instead of root"),
]


def from_torchvision(
    name: str, kind: Callable[..., CIFAR10], holds: str, root: str, download: bool
) -> Dataset:
    """The original archive's files.

    Raises:
        DataError: the data are not there; says how to get them.
    """
    train, test = (
        tv.read(name, holds, root, download, partial(kind, root, t, download=download), PARQUET)
        for t in (True, False)
    )
    return Dataset(
        train=tv.to_images(tv.channels_first(train.data), train.targets),
        test=tv.to_images(tv.channels_first(test.data), test.targets),
        classes=tuple(train.classes),
        mean=MEAN,
        std=STD,
    )


def from_parquet(name: str, path: str, label_column: str, num_classes: int) -> Dataset:
    """The hub's Parquet files: `img` (encoded), and the labels in `label_column`.

    Raises:
        DataError: the folder or a column is missing, a file is damaged, or the number of classes
            is another.
    """
    columns, classes = _parquet.read(name, path, ("train", "test"), label_column=label_column)
    found = _encoded.dataset(name, path, columns, classes, SIZE, MEAN, STD)
    if found.num_classes != num_classes:
        raise DataError(
            f"dataset {name}: {path} has {found.num_classes} classes, not {num_classes}. Other "
            "images: dataset parquet."
        )
    return found
