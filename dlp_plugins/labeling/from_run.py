"""A finished run to label: its training images, described by its own network."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dlp_plugins.datasets.contract import Dataset, Images
from dlp_plugins.embeddings.ids import Ids
from dlp_plugins.embeddings.labels import LabelFile
from dlp_plugins.errors import DataError
from dlp_plugins.inputs import UNLABELED, unit_rows
from dlp_plugins.labeling.images import SIDE
from dlp_plugins.training.folder import RunFolder
from dlp_plugins.training.load import BATCH, Classifier, load
from dlp_plugins.training.run_images import (
    are_pictures,
    inputs,
    read_dataset,
    read_json,
    readable_places,
    to_picture,
)

KEPT = 2_000  # thumbnails in memory


@dataclass(frozen=True)
class RunDescriptors:
    """In place of a file of embeddings: what the run's network makes of its images.

    index: [n] places of the points in `images`.
    """

    images: Images
    index: np.ndarray
    classifier: Classifier

    @property
    def points(self) -> int:
        return len(self.index)

    def load(self, progress: Callable[[int], None] = lambda done: None) -> Tensor:
        """[points, d] float32, rows of length 1."""
        parts, done = [], 0
        for which in np.array_split(self.index, range(BATCH, len(self.index), BATCH)):
            parts.append(torch.from_numpy(self.classifier.describe(inputs(self.images, which))))
            done += len(which)
            progress(done)
        return unit_rows(torch.cat(parts))


class RunPictures:
    """In place of a folder of images: those of the data set that the run was trained on."""

    def __init__(self, images: Images, index: np.ndarray, names: list[str]) -> None:
        self.names = names
        self._images, self._index = images, index
        self.thumbnail = lru_cache(maxsize=KEPT)(self._thumbnail)

    def _thumbnail(self, point: int) -> bytes | None:
        """A PNG of the whole image; None if it cannot be read."""
        try:
            picture = to_picture(inputs(self._images, self._index[[point]])[0])
        except DataError:
            return None
        picture.thumbnail((SIDE, SIDE))
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        return buffer.getvalue()


@dataclass(frozen=True)
class RunToLabel:
    """known: the labels that the run was given. pictures: None where its data are no images."""

    descriptors: RunDescriptors
    ids: Ids
    pictures: RunPictures | None
    known: LabelFile


def open_run(path: Path) -> RunToLabel:
    """The images of a finished run that it gave pseudo-labels to.

    Raises:
        RunFolderError: no run, or not finished.
        DataError: its data set is not here or another one, or it made no pseudo-labels.
        RecipeError, PluginError: a component of its recipe is not registered.
    """
    folder = RunFolder(path)
    folder.check_format()
    classifier = load(path)
    dataset = read_dataset(folder)
    index = readable_places(folder, dataset.train)
    ids = Ids([dataset.file_of(i) for i in index.tolist()])
    names = [str(name) for name in ids.values]
    pictures = None
    if are_pictures(dataset.train):
        pictures = RunPictures(dataset.train, index, names)
    descriptors = RunDescriptors(dataset.train, index, classifier)
    return RunToLabel(descriptors, ids, pictures, _given(folder, dataset, index))


def _given(folder: RunFolder, dataset: Dataset, index: np.ndarray) -> LabelFile:
    given = read_json(folder.labeled_indices).get("labeled_indices", [])
    labels = torch.full((len(index),), UNLABELED)
    known = torch.from_numpy(np.isin(index, given))
    labels[known] = dataset.train.labels[torch.from_numpy(index)][known]
    return LabelFile(labels, list(dataset.classes))
