"""Image data sets that the Hugging Face library `datasets` reads."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from PIL import Image
from pydantic import Field

from dlp_plugins.datasets import _files
from dlp_plugins.datasets.contract import UNKNOWN, Dataset, LazyImages
from dlp_plugins.datasets.imagefolder import Size
from dlp_plugins.errors import DataError
from dlp_plugins.registry import datasets

Channel = Annotated[
    list[float] | None, Field(description="of each channel, pixels in 0..1; else measured")
]


@datasets.register("huggingface", requires=("datasets",), extra="huggingface")
def huggingface(
    path: Annotated[str, Field(description="name on the hub, or a folder of parquet files")],
    image_column: Annotated[str | None, Field(description="else the only image column")] = None,
    label_column: Annotated[str | None, Field(description="else the only class column")] = None,
    train_split: str = "train",
    test_split: str = "test",
    image_size: Size = 32,
    mean: Channel = None,
    std: Channel = None,
) -> Dataset:
    """Any image data set by hub name, or a local folder of train-*.parquet and test-*.parquet.

    The shorter side is resized and the middle square kept. Mean and deviation, where not given, are
    measured on some of the training images.

    Raises:
        DataError: the data are not there, a split or column is missing, or an image is unreadable.
    """
    splits = _load(path)
    for split in (train_split, test_split):
        if split not in splits:
            raise DataError(
                f"dataset huggingface: {path} has no split '{split}'; it has {', '.join(splits)}. "
                "Set dataset.train_split and dataset.test_split."
            )
    features = splits[train_split].features
    image = image_column or _only(features, "Image", "image_column", path)
    label = label_column or _only(features, "ClassLabel", "label_column", path)
    for column in (image, label):
        if column not in features:
            raise DataError(
                f"dataset huggingface: {path} has no column '{column}'; it has "
                f"{', '.join(features)}."
            )
    train = _images(splits[train_split], image, label, image_size, path)
    test = _images(splits[test_split], image, label, image_size, path)
    classes = getattr(features[label], "names", None)
    if classes is None:
        classes = [str(i) for i in range(int(train.labels.max()) + 1)]
    measured = (mean, std) if mean and std else _files.channel_statistics(train)
    return Dataset(
        train=train,
        test=test,
        classes=tuple(classes),
        mean=tuple(mean or measured[0]),
        std=tuple(std or measured[1]),
    )


def _load(path: str) -> Any:
    import datasets as hf

    hf.disable_progress_bars()  # the run has a display of its own
    local = Path(path)
    try:
        if not local.exists():
            return hf.load_dataset(path)
        files: dict[str, list[str]] = {}
        for file in sorted(local.glob("*.parquet")):
            files.setdefault(re.split(r"[-.]", file.name)[0], []).append(str(file))
        if not files:
            raise DataError(
                f"dataset huggingface: {path} holds no parquet file; expected train-*.parquet and "
                "test-*.parquet."
            )
        return hf.DatasetDict(
            {split: hf.Dataset.from_parquet(names) for split, names in files.items()}
        )
    except DataError:
        raise
    except Exception as error:  # the library raises its own, its file system's and its server's
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"dataset huggingface: '{path}' cannot be loaded ({type(error).__name__}: {reason}). "
            "Give an existing folder of parquet files, or a hub name with a network to reach it."
        ) from error


def _only(features: Any, kind: str, setting: str, path: str) -> str:
    names = [name for name, feature in features.items() if type(feature).__name__ == kind]
    if kind == "ClassLabel" and not names and "label" in features:
        names = ["label"]  # a parquet file without the library's own metadata
    if len(names) != 1:
        raise DataError(
            f"dataset huggingface: {path} has {len(names)} columns of type {kind} among "
            f"{', '.join(features)}. Set dataset.{setting}."
        )
    return names[0]


def _images(split: Any, image: str, label: str, size: int, path: str) -> LazyImages:
    labels = torch.tensor([UNKNOWN if y is None else int(y) for y in split[label]])
    return LazyImages(_Reader(split.data.column(image), size, path), labels, (3, size, size))


@dataclass(frozen=True)
class _Reader:
    """The i-th image of an Arrow column of {bytes, path}."""

    column: Any
    size: int
    path: str

    def __call__(self, i: int) -> torch.Tensor:
        item = self.column[i].as_py()
        try:
            source = io.BytesIO(item["bytes"]) if item["bytes"] else item["path"]
            with Image.open(source) as opened:
                return _files.to_tensor(opened, self.size)
        except (OSError, TypeError, AttributeError) as error:
            raise DataError(
                f"dataset huggingface: image {i} of {self.path} is unreadable: {error}."
            ) from error
