"""Image data sets that the Hugging Face library `datasets` reads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from dlp_plugins.datasets import _files
from dlp_plugins.datasets.contract import UNKNOWN, Dataset, LazyImages
from dlp_plugins.datasets.imagefolder import Size
from dlp_plugins.errors import DataError, LabelError
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
    config: Annotated[str | None, Field(description="of a hub data set that has several")] = None,
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
    splits = _load(path, config)
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
    known = {s: splits[s][label] for s in (train_split, test_split)}
    classes = getattr(features[label], "names", None) or _classes(known[train_split], label)
    train, test = (
        LazyImages(
            _Reader(splits[s].data.column(image), image_size, f"{path}, split {s}"),
            _labels(known[s], classes, label),
            (3, image_size, image_size),
        )
        for s in (train_split, test_split)
    )
    measured = (mean, std) if mean and std else _files.channel_statistics(train)
    return Dataset(
        train=train,
        test=test,
        classes=tuple(classes),
        mean=tuple(mean or measured[0]),
        std=tuple(std or measured[1]),
    )


def _load(path: str, config: str | None) -> Any:
    import datasets as hf

    hf.disable_progress_bars()  # the run has a display of its own
    local = Path(path)
    try:
        if not local.exists():
            return hf.load_dataset(path, config)
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
        reason = " ".join(str(error).split())[:300]
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


def _classes(labels: Any, column: str) -> list[str]:
    """Names of the classes of a column that is not declared as one: sorted text, or 0..largest."""
    known = {y for y in labels if y is not None}
    if all(isinstance(y, str) for y in known):
        return sorted(known)
    if all(isinstance(y, int) for y in known):
        return [str(i) for i in range(max(known) + 1)]
    raise LabelError(
        f"dataset huggingface: column '{column}' holds neither whole numbers nor text, "
        f"{next(iter(known))!r} for one. Set dataset.label_column."
    )


def _labels(labels: Any, classes: Sequence[str], column: str) -> torch.Tensor:
    """[n] int64, -1 where the label is missing."""
    number: dict[Any, int] = {name: i for i, name in enumerate(classes)}
    found = [UNKNOWN if y is None else number.get(y, y) for y in labels]
    if unknown := {y for y in found if isinstance(y, str)}:
        raise LabelError(
            f"dataset huggingface: '{sorted(unknown)[0]}' of column '{column}' is no class of the "
            f"training split ({len(unknown)} such)."
        )
    return torch.tensor(found, dtype=torch.long)


@dataclass(frozen=True)
class _Reader:
    """The i-th image of an Arrow column of {bytes, path}."""

    column: Any
    size: int
    path: str

    def __call__(self, i: int) -> torch.Tensor:
        item = self.column[i].as_py()
        try:
            data = item["bytes"] or Path(item["path"]).read_bytes()
            return _files.decode(data, self.size)
        except (*_files.UNREADABLE, TypeError, KeyError) as error:
            raise DataError(
                f"dataset huggingface: image {i} of {self.path} is unreadable: {error}."
            ) from error
