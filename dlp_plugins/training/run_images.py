"""The training images of a finished run, read again from its folder.

Only what is registered is built; a folder never brings code of its own.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dlp_plugins import registry
from dlp_plugins._files import reading
from dlp_plugins.datasets.contract import (
    UNKNOWN,
    Dataset,
    Images,
    TensorImages,
    list_unreadable,
)
from dlp_plugins.errors import DataError
from dlp_plugins.training.data import fingerprint
from dlp_plugins.training.folder import RunFolder

DAMAGED = (OSError, ValueError, EOFError, zipfile.BadZipFile)


def read_dataset(folder: RunFolder) -> Dataset:
    """The data set of a run; nothing is downloaded.

    Raises:
        DataError: it is not here, or not the one that the run was trained on.
        RecipeError, PluginError: a component of the recipe is not registered.
    """
    part = folder.read_recipe().dataset
    params = {**part.params, **({"download": False} if "download" in part.params else {})}
    dataset: Dataset = registry.datasets.build(part.name, **params)
    recorded = read_json(folder.labeled_indices).get("data", {})
    if recorded.get("training images") != fingerprint(dataset.train, dataset.classes):
        raise DataError(
            f"{folder.path.name}: the data set '{part.name}' is not the one that the run was "
            "trained on."
        )
    return dataset


def places(folder: RunFolder) -> np.ndarray:
    """[n] int64: the place of each of the run's pseudo-labels in the data set's training split.

    Raises:
        DataError: the run has no pseudo-labels, or their file is damaged.
    """
    return _pseudo_labels(folder, "index")[0]


def _pseudo_labels(folder: RunFolder, *names: str) -> list[np.ndarray]:
    """Arrays [n] int64 of the file of pseudo-labels."""
    if not folder.pseudo_labels.is_file():
        raise DataError(f"{folder.path.name}: there are no pseudo-labels; the run made none.")
    try:
        with np.load(folder.pseudo_labels, allow_pickle=False) as arrays:
            return [arrays[name].astype(np.int64, casting="safe") for name in names]
    except (*DAMAGED, KeyError, TypeError) as error:
        raise DataError(f"{folder.pseudo_labels} cannot be read: {error}.") from None


def readable_places(folder: RunFolder, images: Images) -> np.ndarray:
    """As `places`, less the images that the run left out as they could not be read.

    Raises:
        DataError: as `places`; a place is outside the training images.
    """
    index, labels = _pseudo_labels(folder, "index", "labels")
    if index.min() < 0 or index.max() >= len(images):
        raise DataError(f"{folder.pseudo_labels}: an index is outside the training images.")
    if isinstance(images, TensorImages) or not images.skip:
        return index
    unknown = index[labels == UNKNOWN]  # what is left out has no label
    left_out = [i for i in unknown.tolist() if images.read_or_skip(i)[1]]
    return index[~np.isin(index, left_out)]


def readable_inputs(images: Images, which: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """Images [r, *shape] and their places [r], of the given places those that can be read.

    Raises:
        DataError: one cannot be read, and the data set does not leave such images out; or none can.
    """
    found, read, problems = read_some(images, which)
    if not len(read):
        raise DataError(list_unreadable(problems, len(which)))
    return found, read


def read_some(images: Images, which: np.ndarray) -> tuple[Tensor, np.ndarray, list[str]]:
    """As `readable_inputs`, perhaps of no image at all; with sentences on those left out."""
    if isinstance(images, TensorImages):
        return inputs(images, which), which, []
    found = [images.read_or_skip(int(i)) for i in which]
    good = np.array([not problem for _, problem in found], dtype=bool)
    rows = [image for image, problem in found if not problem]
    stacked = torch.stack(rows) if rows else torch.empty(0, *images.shape, dtype=images.dtype)
    return stacked, which[good], [problem for _, problem in found if problem]


def inputs(images: Images, which: np.ndarray) -> Tensor:
    """[m, *shape] of the images at these places.

    Raises:
        DataError: one cannot be read.
    """
    if isinstance(images, TensorImages):
        return images.images[torch.from_numpy(which)]
    return torch.stack([images[int(i)] for i in which])


def are_pictures(images: Images) -> bool:
    """Whether they can be shown: one or three channels, height and width."""
    return len(images.shape) == 3 and images.shape[0] in (1, 3)


def to_picture(pixels: Tensor) -> Image.Image:
    """A picture of [1 or 3, height, width]; floats are stretched from their least to their most."""
    if pixels.dtype != torch.uint8:
        low, high = pixels.min(), pixels.max()
        span = high - low if high > low else 1.0
        pixels = ((pixels - low) / span * 255).round().to(torch.uint8)
    array = pixels.permute(1, 2, 0).numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def read_json(path: Path) -> dict[str, Any]:
    """An object from a file of a run folder; DataError if it is damaged or something else."""
    try:
        found = reading.read_json(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from None
    if not isinstance(found, dict):
        raise DataError(f"{path} cannot be read: it is no object.")
    return found


def read_text(path: Path) -> str:
    """The text of a file of a run folder; DataError if it cannot be read."""
    try:
        return reading.read_text(path, reading.MOST_JSON)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from None
