"""Photos to class names, by a trained network or by an index of labelled embeddings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dlp_plugins import registry
from dlp_plugins.datasets.contract import list_unreadable
from dlp_plugins.embeddings.index import Index, load_index
from dlp_plugins.embeddings.record import Record
from dlp_plugins.embeddings.table import Column, check_out, write_rows
from dlp_plugins.environment import choose_device
from dlp_plugins.errors import DataError, RunFolderError, UsageError
from dlp_plugins.photos import decoding
from dlp_plugins.photos.decoding import Bad
from dlp_plugins.photos.describer import build_describer
from dlp_plugins.photos.gray import to_gray
from dlp_plugins.photos.source import Photos, open_photos, warn_of_skipped
from dlp_plugins.training.folder import RunFolder
from dlp_plugins.training.load import Classifier, load
from dlp_plugins.training.run_images import read_dataset, read_json, read_some

BATCH = 64
Net = Literal["student", "teacher"]
Progress = Callable[[int], object]
Nearest = Callable[[np.ndarray, int], list[list[str]]]
"""Descriptors [b, d] and a number k to the names of the k nearest labelled examples of each."""


@dataclass(frozen=True)
class Predictions:
    """What `predict` wrote of n photos.

    files: [n] names. labels: [n] positions in `classes`, -1 where no label reaches a photo.
    probabilities: [n] that the label is right.
    nearest: [n] names of the most similar labelled examples.
    skipped: sentences on photos that were left out.
    """

    files: list[str]
    labels: np.ndarray
    probabilities: np.ndarray
    classes: Sequence[Any]
    nearest: list[list[str]] | None
    skipped: list[str]


class Predictor(ABC):
    """Class probabilities of photos.

    classes: names. size, interpolation: that photos are brought to.
    """

    classes: Sequence[Any]
    size: tuple[int, int]
    interpolation: str

    @abstractmethod
    def probabilities(self, images: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """[b, c] of images [b, 3, height, width] uint8, and their descriptors [b, d]."""

    def probability(self, p: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """[b] that labels [b] of class probabilities p [b, c] are right; those of the classes."""
        return p.max(axis=1)

    @abstractmethod
    def labelled_examples(self) -> Nearest:
        """Load the labelled examples, to find the nearest ones of descriptors.

        Raises:
            UsageError: they are not known.
            DataError: the data set is not that of the run, or none of them can be read.
        """


class RunPredictor(Predictor):
    """By the network of a run."""

    interpolation = "bilinear"  # as data sets are read

    def __init__(self, folder: Path, classifier: Classifier) -> None:
        classifier.check_photos()
        self.folder, self.classifier, self.classes = folder, classifier, classifier.classes
        self.size = (classifier.shape[1], classifier.shape[2])

    def probabilities(self, images: Tensor) -> tuple[np.ndarray, np.ndarray]:
        view = to_gray(images) if self.classifier.shape[0] == 1 else images
        return self.classifier.predict_and_describe(view)

    def labelled_examples(self) -> Nearest:
        dataset = read_dataset(RunFolder(self.folder))
        chosen = np.array(read_json(RunFolder(self.folder).labeled_indices)["labeled_indices"])
        names: list[str] = []
        parts: list[np.ndarray] = []
        problems: list[str] = []
        for start in range(0, len(chosen), BATCH):  # all at once may be more than memory holds
            images, read, unreadable = read_some(dataset.train, chosen[start : start + BATCH])
            problems += unreadable
            if len(read):
                parts.append(unit(self.classifier.describe(images)))
                names += [dataset.file_of(i) for i in read.tolist()]
        if not names:
            raise DataError(list_unreadable(problems, len(chosen)))
        examples = np.concatenate(parts)

        def nearest(descriptors: np.ndarray, count: int) -> list[list[str]]:
            order = np.argsort(-unit(descriptors) @ examples.T, axis=1, kind="stable")
            return [[names[i] for i in row[:count]] for row in order]

        return nearest


class IndexPredictor(Predictor):
    """By an index of labelled embeddings, with the network that made these."""

    def __init__(
        self, path: Path, index: Index, device: torch.device, plugins: Sequence[Path]
    ) -> None:
        if index.embedding is None:
            raise DataError(
                f"{path}: does not say which network made its embeddings. Embed the photos with "
                "it and use `dlp assign`; or embed all photos with `dlp embed` and save the index "
                "again."
            )
        record = Record.from_dict(index.embedding, str(path))
        self.index, self.describer = index, build_describer(record, device, plugins)
        self.classes, self.size = index.classes, record.size
        self.interpolation = record.interpolation

    def probabilities(self, images: Tensor) -> tuple[np.ndarray, np.ndarray]:
        found = self.describer(images)
        return self.index.predict(found)[0], found.numpy()

    def probability(self, p: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Calibrated, where the propagation was."""
        found = self.index.probability(torch.from_numpy(p), torch.from_numpy(labels))
        return super().probability(p, labels) if found is None else found.numpy()

    def labelled_examples(self) -> Nearest:
        raise UsageError(
            "--nearest: an index keeps no labelled examples. It works with the folder of a run."
        )


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def refuse_for_index(path: Path, network: str, weights: str) -> None:
    """Raise UsageError for a choice that only a run offers."""
    if network != "student" or weights != "last":
        option = "--network" if network != "student" else "--weights"
        raise UsageError(
            f"{option}: {path} is an index, which has one network. The folder of a run has several."
        )


def open_predictor(
    model: str | Path,
    *,
    network: Net = "student",
    weights: Literal["last", "best"] = "last",
    device: str = "auto",
    plugins: Sequence[Path] = (),
) -> Predictor:
    """What predicts: the folder of a finished run, or an index by `dlp propagate --save-index`.

    Raises:
        RunFolderError, DataError: it is neither, damaged, or takes no photos.
        UsageError: an index with a choice that only a run offers.
        RecipeError, PluginError: a component of it is not registered.
    """
    path = Path(model)
    if path.is_dir():
        found = load(path, network=network, weights=weights, device=device, plugins=plugins)
        return RunPredictor(path, found)
    if not path.exists():
        raise RunFolderError(f"{path}: there is no such run folder or index.")
    refuse_for_index(path, network, weights)
    for file in plugins:
        registry.load_plugin_file(file)
    return IndexPredictor(path, load_index(path), choose_device(device), plugins)


def check_table(out: str | Path, overwrite: bool, model: object, photos: object) -> None:
    """Refuse a table that cannot be written, or would replace what is read; see `check_out`.

    Args:
        model, photos: as `predict` takes them; only what is given by its path is known here.
    """
    # the table of an earlier call may lie beside the photos
    is_folder = isinstance(photos, Path | str) and Path(photos).is_dir()
    check_out(Path(out), overwrite, {"MODEL": model, "PHOTOS": None if is_folder else photos})


def predict(
    model: str | Path | Predictor,
    photos: str | Path | Photos,
    out: str | Path | None = None,
    *,
    nearest: int = 0,
    bad: Bad = "stop",
    overwrite: bool = False,
    progress: Progress = lambda done: None,
    **options: Any,
) -> Predictions:
    """Classify photos and, where `out` is given, write the table: file, label, probability.

    Args:
        model: as `open_predictor` takes it with `options`.
        photos: see `open_photos`.
        nearest: of a run: so many columns nearest_1, ... of the most similar labelled examples.
        bad: 'stop' names all images that cannot be read, 'skip' leaves them out with a warning.
        progress: called with the number of photos done.

    Raises:
        UsageError: a path or an option is wrong.
        As `open_predictor`, `open_photos`; DataError: an image cannot be read.
        SaveError: the table cannot be written.
    """
    if out is not None:
        check_table(out, overwrite, model, photos)
    predictor = model if isinstance(model, Predictor) else open_predictor(model, **options)
    source = photos if isinstance(photos, Photos) else open_photos(photos)
    find = predictor.labelled_examples() if nearest else None
    files: list[str] = []
    labels: list[np.ndarray] = []
    certain: list[np.ndarray] = []
    near: list[list[str]] = []
    problems: list[str] = []
    for batch in decoding.read_all(
        source, predictor.size, predictor.interpolation, BATCH, bad, problems
    ):
        if batch.positions:
            p, descriptors = predictor.probabilities(batch.images)
            labels.append(np.where(p.any(axis=1), p.argmax(axis=1), -1))
            certain.append(predictor.probability(p, labels[-1]))
            files += [source.names[i] for i in batch.positions]
            near += [] if find is None else find(descriptors, nearest)
        progress(batch.last)
    found = Predictions(
        files,
        np.concatenate(labels),
        np.concatenate(certain).astype(np.float32),
        predictor.classes,
        near if nearest else None,
        problems,
    )
    if out is not None:
        write_rows(Path(out), list(columns(found, nearest)), len(files))
    warn_of_skipped(problems, len(source))
    return found


def columns(found: Predictions, nearest: int) -> Iterator[Column]:
    """Of the table."""
    names = [str(c) for c in found.classes]
    yield Column("file", "string", lambda rows: found.files[rows])
    yield Column(
        "label", "string",
        lambda rows: [names[i] if i >= 0 else None for i in found.labels[rows]],
    )  # fmt: skip
    yield Column("probability", "float32", lambda rows: found.probabilities[rows])
    for k in range(nearest):

        def kth(rows: slice, k: int = k) -> list[str | None]:
            assert found.nearest is not None
            return [near[k] if k < len(near) else None for near in found.nearest[rows]]

        yield Column(f"nearest_{k + 1}", "string", kth)
