"""What a run folder tells: its files, and what its network and data set add where both are here.

Only what is registered is built; a folder never brings code of its own.
"""

from __future__ import annotations

import json
import shlex
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from dlp_plugins.datasets.contract import Dataset
from dlp_plugins.errors import DataError, DlpError, RunFolderError
from dlp_plugins.inputs import UNLABELED
from dlp_plugins.report.map import MOST_POINTS
from dlp_plugins.report.pictures import small
from dlp_plugins.report.points import Absent, Embedded, Points, Thumbnail, sample
from dlp_plugins.training.folder import RunFolder
from dlp_plugins.training.load import Classifier, load
from dlp_plugins.training.run_images import (
    DAMAGED,
    are_pictures,
    inputs,
    places,
    read_dataset,
    read_json,
    read_text,
    readable_inputs,
    to_picture,
)

MOST_TEST = 2_000  # images that the network classifies for the page, a sample of more
MOST_MAPPED = 2_000
T = TypeVar("T")


@dataclass(frozen=True)
class RunReading:
    """name: of the run in the page. pseudo: training images. test: a sample of the test images."""

    name: str
    summary: dict[str, Any]
    history: list[dict[str, Any]]
    recipe: str
    settings: dict[str, Any]
    environment: dict[str, Any]
    pseudo: Points | Absent
    test: Points | Absent
    embedded: Embedded | Absent
    thumbnail: Thumbnail | Absent


def read_run(path: Path, name: str, device: str = "auto") -> RunReading:
    """Read a finished run.

    Raises:
        RunFolderError: no run, or not finished. DataError: a file of it is damaged.
    """
    folder = RunFolder(path)
    folder.check_format()
    if not folder.summary.is_file():
        words = ["dlp", "run", str(folder.recipe), "--out", str(path), "--resume"]
        for file, _ in folder.read_plugins():
            words += ["--plugin", file]
        raise RunFolderError(
            f"{path} holds an unfinished run. Finish it first: {shlex.join(words)}"
        )
    summary = folder.read_summary()
    text = read_text(folder.recipe)
    dataset = _unless_missing(f"{name}: the data set", lambda: read_dataset(folder))
    classifier = _unless_missing(f"{name}: the network", lambda: load(path, device=device))
    pseudo = _unless_missing(f"{name}: the pseudo-labels", lambda: _pseudo(folder, dataset))
    return RunReading(
        name,
        summary,
        _history(path / "metrics.jsonl"),
        text,
        _settings(folder.recipe, text),
        read_json(folder.environment),
        pseudo,
        _unless_missing(f"{name}: the test images", lambda: _test(dataset, classifier)),
        _unless_missing(f"{name}: the map", lambda: _embedded(dataset, classifier, pseudo, folder)),
        _thumbnails(dataset, pseudo, folder),
    )


def _unless_missing(what: str, read: Callable[[], T | Absent]) -> T | Absent:
    """What `read` returns, or why it cannot: the rest of the page does without."""
    try:
        return read()
    except DlpError as error:
        return Absent(f"{what} cannot be shown: {error}")


def _pseudo(folder: RunFolder, dataset: Dataset | Absent) -> Points | Absent:
    if not folder.pseudo_labels.is_file():
        return Absent(f"{folder.path.name}: there are no pseudo-labels; the run made none.")
    try:
        with np.load(folder.pseudo_labels, allow_pickle=False) as arrays:
            index, labels = arrays["index"], arrays["labels"]
            certainty = arrays["certainty"]
        classes = [str(c) for c in read_json(folder.model)["classes"]]
        _check_pseudo_labels(index, labels, certainty, len(classes), dataset)
    except (*DAMAGED, KeyError, TypeError) as error:
        raise DataError(f"{folder.pseudo_labels} cannot be read: {error}.") from None
    known = np.isin(index, read_json(folder.labeled_indices).get("labeled_indices", []))
    names, truth = [f"image {i}" for i in index.tolist()], None
    if isinstance(dataset, Dataset):
        truth = dataset.train.labels.numpy()[index]
        if dataset.files is not None:
            names = [dataset.file_of(i) for i in index.tolist()]
    return Points(
        "training images", "certainty", labels.astype(np.int64), certainty, classes, names, known,
        truth,
    )  # fmt: skip


def _check_pseudo_labels(
    index: np.ndarray,
    labels: np.ndarray,
    certainty: np.ndarray,
    classes: int,
    dataset: Dataset | Absent,
) -> None:
    """Raise ValueError unless the arrays fit one another, the classes and the data set."""
    if not index.shape == labels.shape == certainty.shape == (len(index),) or not len(index):
        raise ValueError("index, labels and certainty are not of one length")
    if labels.dtype.kind != "i" or index.dtype.kind != "i" or certainty.dtype.kind != "f":
        raise ValueError("index and labels must be whole numbers, certainty real ones")
    if labels.min() < UNLABELED or labels.max() >= classes or not np.isfinite(certainty).all():
        raise ValueError(f"a label is outside 0..{classes - 1}, or a certainty is not finite")
    images = len(dataset.train) if isinstance(dataset, Dataset) else np.inf
    if index.min() < 0 or index.max() >= images:
        raise ValueError("an index is outside the training images")


def _test(dataset: Dataset | Absent, classifier: Classifier | Absent) -> Points | Absent:
    for needed in (dataset, classifier):
        if isinstance(needed, Absent):
            return needed
    assert isinstance(dataset, Dataset)
    assert isinstance(classifier, Classifier)
    if dataset.test is None:
        return Absent("There are no test images.")
    test = dataset.test
    which = sample(len(test), np.empty(0, dtype=np.int64), MOST_TEST)
    images, which = readable_inputs(test, which)
    probabilities = classifier.predict_proba(images)
    return Points(
        "test images",
        "probability",
        probabilities.argmax(axis=1),
        probabilities.max(axis=1),
        list(classifier.classes),
        [f"test image {i}" for i in which],
        None,
        test.labels.numpy()[which],
    )


def _embedded(
    dataset: Dataset | Absent,
    classifier: Classifier | Absent,
    pseudo: Points | Absent,
    folder: RunFolder,
) -> Embedded | Absent:
    for needed in (dataset, classifier, pseudo):
        if isinstance(needed, Absent):
            return needed
    assert isinstance(dataset, Dataset)
    assert isinstance(classifier, Classifier)
    assert isinstance(pseudo, Points)
    which = sample(len(pseudo), np.flatnonzero(pseudo.known), min(MOST_MAPPED, MOST_POINTS))
    index = places(folder)[which]
    images, read = readable_inputs(dataset.train, index)
    return Embedded(classifier.describe(images), which[np.isin(index, read)])


def _thumbnails(
    dataset: Dataset | Absent, pseudo: Points | Absent, folder: RunFolder
) -> Thumbnail | Absent:
    for needed in (dataset, pseudo):
        if isinstance(needed, Absent):
            return needed
    assert isinstance(dataset, Dataset)
    images = dataset.train
    if not are_pictures(images):
        return Absent("The data are no images, so none are shown.")
    index = places(folder)

    def thumbnail(point: int) -> bytes | None:
        try:
            return small(to_picture(inputs(images, index[[point]])[0]))
        except DataError:
            return None

    return thumbnail


def _settings(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{path} cannot be read: {error}.") from None


def _history(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    found = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        try:
            metrics = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: cannot be read: {error}.") from None
        if isinstance(metrics, dict):
            found.append(metrics)
    return found
