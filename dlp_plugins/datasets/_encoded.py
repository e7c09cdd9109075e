"""Encoded images and labels in columns of Arrow tables: what `parquet` and `huggingface` share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field

from dlp_plugins.datasets import _files
from dlp_plugins.datasets._statistics import measure
from dlp_plugins.datasets.contract import UNKNOWN, Dataset, LazyImages, number_classes
from dlp_plugins.errors import DataError, LabelError

PerChannel = Annotated[
    list[float] | None,
    Field(description="of each channel, pixels in 0..1; by default measured on training images"),
]


@dataclass(frozen=True)
class EncodedReader:
    """Decodes the i-th image of a column of bytes, or of {bytes, path}; picklable.

    `path` is ignored: a stranger's file could name any file of this machine in it.
    """

    column: Any
    size: tuple[int, int]
    where: str
    interpolation: str = "bilinear"

    def __call__(self, i: int) -> torch.Tensor:
        item = self.column[i].as_py()
        data = item.get("bytes") if isinstance(item, dict) else item
        try:
            if not data:
                raise ValueError(
                    "the row holds no bytes (a file that it may name is not opened; save the "
                    "images in the table)"
                )
            return _files.decode(data, self.size, self.interpolation)
        except _files.UNREADABLE as error:
            raise DataError(
                f"{self.where}: image {i} cannot be read: {error}. Remove or replace that row."
            ) from error


def dataset(
    name: str,
    path: str,
    columns: dict[str, tuple[Any, list[Any]]],
    classes: Sequence[str] | None,
    size: tuple[int, int],
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    skip: bool = False,
) -> Dataset:
    """A data set from image and label columns.

    Args:
        name: of the component, for messages.
        columns: of the training and the test split, by their names and in this order: images, and
            labels as numbers, text or None.
        skip: leave out images that cannot be read.
        classes: names of the numbered classes; else the sorted text, or 0 to the largest number.

    Raises:
        DataError: images needed for mean and std cannot be read.
        LabelError: labels that are neither whole numbers nor text, or are no class of the training.
    """
    columns = {split: (images, _known(labels)) for split, (images, labels) in columns.items()}
    train_labels = next(iter(columns.values()))[1]
    classes = list(classes or _find_classes(train_labels, name))
    train, test = (
        LazyImages(
            EncodedReader(images, size, f"dataset {name}: {path}, split {split}"),
            _numbers(labels, classes, name, split),
            (3, *size),
            skip=skip,
        )
        for split, (images, labels) in columns.items()
    )
    measured = (mean, std) if mean and std else measure(train)
    return Dataset(
        train=train,
        test=test,
        classes=tuple(classes),
        mean=tuple(mean or measured[0]),
        std=tuple(std or measured[1]),
    )


def _known(labels: Sequence[Any]) -> list[Any]:
    """Labels, with None for those that say there is none: blank text, and -1 as text."""
    return [None if isinstance(y, str) and y.strip() in ("", "-1") else y for y in labels]


def _find_classes(labels: Sequence[Any], name: str) -> list[str]:
    known = {y for y in labels if y is not None}
    if all(isinstance(y, str) for y in known):
        return sorted(known)
    if all(isinstance(y, int) for y in known):
        return number_classes(max(known), len(labels))
    odd = next(y for y in known if not isinstance(y, int))
    raise LabelError(
        f"dataset {name}: the label column holds neither whole numbers nor text, {odd!r} for one. "
        "Set dataset.label_column."
    )


def _numbers(labels: Sequence[Any], classes: Sequence[str], name: str, split: str) -> torch.Tensor:
    """[n] int64, -1 where the label is missing."""
    number: dict[Any, int] = {c: i for i, c in enumerate(classes)}
    found = [UNKNOWN if y is None else number.get(y, y) for y in labels]
    if odd := [y for y in found if not isinstance(y, int)]:
        raise LabelError(
            f"dataset {name}: label {odd[0]!r} of split {split} is no class of the training split "
            f"({len(odd)} such)."
        )
    return torch.tensor(found, dtype=torch.long)
