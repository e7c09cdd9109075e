"""Image data sets of the Hugging Face hub, by its library `datasets`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from dlp_plugins.datasets import _encoded, _files
from dlp_plugins.datasets.contract import Dataset
from dlp_plugins.errors import DataError
from dlp_plugins.registry import datasets


@datasets.register("huggingface", requires=("datasets",), extra="huggingface")
def huggingface(
    path: Annotated[str, Field(description="name on the hub")],
    image_column: Annotated[str | None, Field(description="else the only image column")] = None,
    label_column: Annotated[str | None, Field(description="else the only class column")] = None,
    train_split: str = "train",
    test_split: str = "test",
    config: Annotated[str | None, Field(description="of a hub data set that has several")] = None,
    image_size: _files.Size = 32,
    mean: _encoded.PerChannel = None,
    std: _encoded.PerChannel = None,
) -> Dataset:
    """Any image data set of the Hugging Face hub, by its name there.

    The largest middle part of an image of the proportions of image_size is kept and resized.
    Downloaded Parquet files need neither a network nor that library: dataset parquet reads them.

    Raises:
        DataError: the data are not there, a split or column is missing, or an image is unreadable.
    """
    if Path(path).is_dir():
        raise DataError(
            f"dataset huggingface: {path} is a folder, not a name on the hub. A folder of Parquet "
            "files is read by dataset parquet, one of images by dataset imagefolder."
        )
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
    columns = {
        s: (splits[s].data.column(image), list(splits[s][label])) for s in (train_split, test_split)
    }
    classes = getattr(features[label], "names", None)
    size = _files.height_and_width(image_size)
    return _encoded.dataset("huggingface", path, columns, classes, size, mean, std)


def images_of(path: str, column: str | None, split: str) -> tuple[Any, str]:
    """The column of encoded images of a hub data set's split, and what tells its versions apart.

    Raises:
        DataError: the data are not there, or a split or column is missing.
        MissingDependency: the library `datasets` is not installed.
    """
    datasets.find("huggingface").check_dependencies()
    splits = _load(path, None)
    if split not in splits:
        raise DataError(f"hf:{path} has no split '{split}'; it has {', '.join(splits)}.")
    features = splits[split].features
    column = column or _only(features, "Image", "image_column", path)
    if column not in features:
        raise DataError(f"hf:{path} has no column '{column}'; it has {', '.join(features)}.")
    return splits[split].data.column(column), str(splits[split]._fingerprint)


def _load(path: str, config: str | None) -> Any:
    import datasets as hf

    hf.disable_progress_bars()  # the run has a display of its own
    try:
        return hf.load_dataset(path, config)
    except Exception as error:  # the library raises its own, its file system's and its server's
        reason = " ".join(str(error).split())[:300]
        raise DataError(
            f"dataset huggingface: '{path}' cannot be loaded ({type(error).__name__}: {reason}). "
            "Give a hub name with a network to reach it; or download its Parquet files and use "
            "dataset parquet."
        ) from error


def _only(features: Any, kind: str, setting: str, path: str) -> str:
    names = [name for name, feature in features.items() if type(feature).__name__ == kind]
    if kind == "ClassLabel" and not names and "label" in features:
        names = ["label"]
    if len(names) != 1:
        raise DataError(
            f"dataset huggingface: {path} has {len(names)} columns of type {kind} among "
            f"{', '.join(features)}. Set dataset.{setting}."
        )
    return names[0]
