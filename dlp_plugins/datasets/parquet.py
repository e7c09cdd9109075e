"""Images in Parquet files, as the Hugging Face hub stores them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dlp_plugins.datasets import _encoded, _files, _parquet
from dlp_plugins.datasets.contract import Dataset
from dlp_plugins.registry import datasets


@datasets.register("parquet", requires=("pyarrow",), extra="parquet")
def parquet(
    path: Annotated[str, Field(description="folder of train-*.parquet and test-*.parquet")],
    image_column: Annotated[str | None, Field(description="else the only one of bytes")] = None,
    label_column: Annotated[str | None, Field(description="else 'label', or the only one")] = None,
    train_split: Annotated[str, Field(description="how its files' names begin")] = "train",
    test_split: Annotated[str, Field(description="how its files' names begin")] = "test",
    image_size: _files.Size = 32,
    mean: _encoded.PerChannel = None,
    std: _encoded.PerChannel = None,
    unreadable: _files.Unreadable = "stop",
) -> Dataset:
    """A folder of Parquet files: a column of encoded images, a column of labels.

    An image is bytes, or a struct with a field `bytes`; a file that a row names is never opened.
    Labels are whole numbers from 0, or text; empty or -1 means unknown. Class names are those that
    the library `datasets` has left in the files, where it has. The largest middle part of an image
    of the proportions of image_size is kept and resized. The encoded images are held in memory.

    Raises:
        DataError: the folder, a split or column is missing, or a file or image is unreadable.
        LabelError: labels that are neither whole numbers nor text, or out of range.
    """
    splits = (train_split, test_split)
    columns, classes = _parquet.read("parquet", path, splits, image_column, label_column)
    size = _files.height_and_width(image_size)
    return _encoded.dataset(
        "parquet", path, columns, classes, size, mean, std, unreadable == "skip"
    )
