"""The classifier that a run trained, from its folder alone.

>>> import dlp_plugins
>>> classifier = dlp_plugins.load("runs/quickstart")  # doctest: +SKIP
>>> classifier.predict(images)  # doctest: +SKIP
['7', '3', ...]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dlp_plugins._files.reading import read_json
from dlp_plugins.augmentations.contract import Augmentation
from dlp_plugins.backbones.contract import normalization, weights_later
from dlp_plugins.datasets.contract import TensorImages
from dlp_plugins.environment import choose_device
from dlp_plugins.errors import DataError, RunFolderError
from dlp_plugins.network import Network
from dlp_plugins.recipe.build import build_part
from dlp_plugins.registry import load_plugin_file
from dlp_plugins.training import checkpoint
from dlp_plugins.training.evaluate import evaluation
from dlp_plugins.training.folder import RunFolder
from dlp_plugins.training.learner import build_augmentation, build_network

BATCH = 256
MOST_NUMBERS = 2**28  # in an input; a stranger's file may claim any


class Classifier:
    """A trained network with its classes and its view of an image.

    Attributes:
        classes: names of the classes, in the order of the probabilities' columns.
        shape: of an input: (channels, height, width), or (d,).
        dtype: of an input, uint8 or float32.
        mean, std: that inputs are normalised by.
    """

    def __init__(
        self,
        network: Network,
        augmentation: Augmentation,
        classes: Sequence[str],
        shape: Sequence[int],
        dtype: torch.dtype,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
    ) -> None:
        self.network, self.augmentation = network.to(device), augmentation
        self.classes, self.shape, self.dtype = tuple(classes), tuple(shape), dtype
        self.mean, self.std = normalization(network.backbone) or (tuple(mean), tuple(std))
        self.device = device

    def predict(self, images: Any) -> list[str]:
        """Name of the most probable class of each image; `images` as `predict_proba` takes."""
        return [self.classes[i] for i in self.predict_proba(images).argmax(axis=1)]

    def predict_proba(self, images: Any) -> np.ndarray:
        """Class probabilities [n, c] float32, rows that sum to 1.

        Args:
            images: a tensor or array [n, *shape] of `dtype` (uint16 images are scaled to float32),
                or a single one [*shape].

        Raises:
            DataError: of another shape or type.
        """
        return self._each(images, lambda view: self.network(view).logits.float().softmax(dim=1))

    def describe(self, images: Any) -> np.ndarray:
        """Descriptors [n, d] float32: what the graph of label propagation is built from."""
        return self._each(images, lambda view: self.network.describe(view).float())

    def predict_and_describe(self, images: Any) -> tuple[np.ndarray, np.ndarray]:
        """`predict_proba` and `describe` by one pass of the network."""
        c = len(self.classes)

        def both(view: Tensor) -> Tensor:
            found = self.network(view)
            return torch.cat([found.logits.float().softmax(dim=1), found.descriptor.float()], dim=1)

        rows = self._each(images, both)
        return rows[:, :c], rows[:, c:]

    def check_photos(self) -> None:
        """Raise DataError unless inputs are 8-bit images of one or three channels."""
        if len(self.shape) != 3 or self.shape[0] not in (1, 3) or self.dtype != torch.uint8:
            raise DataError(
                f"This network was trained on inputs {list(self.shape)} of {self.dtype}, not on "
                "8-bit images of 1 or 3 channels, so it takes no photos."
            )

    def _each(self, images: Any, compute: Callable[[Tensor], Tensor]) -> np.ndarray:
        examples = self._check(images)
        with evaluation(self.network):
            parts = [
                compute(self.augmentation.plain(batch.to(self.device))).cpu()
                for batch in examples.split(BATCH)
            ]
        return torch.cat(parts).numpy()

    def _check(self, images: Any) -> Tensor:
        given = torch.as_tensor(images)
        if given.ndim == len(self.shape):
            given = given[None]
        examples = TensorImages(given, torch.full((len(given),), -1))
        if examples.shape != self.shape or examples.dtype != self.dtype or len(given) == 0:
            raise DataError(
                f"This network was trained on inputs {list(self.shape)} of {self.dtype}; found "
                f"{len(given)} of {list(examples.shape)}, {examples.dtype}."
            )
        return examples.images


def load(
    run_folder: str | Path,
    *,
    network: Literal["student", "teacher"] = "student",
    weights: Literal["last", "best"] = "last",
    device: str = "auto",
    plugins: Sequence[str | Path] = (),
) -> Classifier:
    """The network that a finished run trained, ready to classify.

    Args:
        run_folder: what `dlp run` wrote.
        network: the student, or the teacher that the consistency method kept.
        weights: of the last epoch, or of the best one by the validation split.
        device: 'auto' (a GPU where there is one), 'cpu' or 'cuda'.
        plugins: Python files that register components of the run's recipe; a folder never brings
            code of its own.

    Raises:
        RunFolderError: no run, not finished, or without these weights.
        DataError: a file of it is damaged.
        RecipeError, PluginError: a component of the recipe is not registered.
    """
    folder = RunFolder(Path(run_folder))
    folder.check_format()
    for file in plugins:
        load_plugin_file(Path(file))
    recipe = folder.read_recipe()
    path = folder.weights(network) if weights == "last" else folder.best_weights(network)
    if not folder.summary.is_file() or not path.is_file():
        raise RunFolderError(_missing(folder, path, network, weights))
    model = _read_model(folder)
    consistency = build_part(recipe, "consistency", num_classes=len(model["classes"]))
    saved = checkpoint.load(path)[0]
    try:
        with weights_later():
            built = build_network(recipe, model["shape"], len(model["classes"]), consistency)
        built.load_state_dict(saved)
    except RuntimeError as error:
        reason = str(error).partition(":")[0]
        raise DataError(
            f"{path} does not fit the network of {folder.recipe} and {folder.model}: {reason}."
        ) from error
    return Classifier(
        built,
        build_augmentation(recipe, built, model["mean"], model["std"]),
        model["classes"],
        model["shape"],
        getattr(torch, model["dtype"]),
        model["mean"],
        model["std"],
        choose_device(device),
    )


def _missing(folder: RunFolder, path: Path, network: str, weights: str) -> str:
    if not folder.summary.is_file():
        return f"{folder.path} holds an unfinished run. Finish it with --resume first."
    why = {
        ("teacher", "last"): "its consistency method kept no teacher",
        ("student", "best"): "it had no validation split (dataset.num_validation)",
        ("teacher", "best"): "it had no teacher, or no validation split (dataset.num_validation)",
    }
    return f"{path}: there is no such file: {why.get((network, weights), 'was it removed?')}."


def _read_model(folder: RunFolder) -> dict[str, Any]:
    if not folder.model.is_file():  # reading a pipe would wait for ever
        raise DataError(f"{folder.model} cannot be read: there is no such file.")
    try:
        model = read_json(folder.model)
        checked = {key: model[key] for key in ("classes", "shape", "mean", "std", "dtype")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder.model} cannot be read: {error!r}.") from None
    classes, shape = checked["classes"], checked["shape"]
    if checked["dtype"] not in ("uint8", "float32"):
        raise DataError(f"{folder.model}: dtype: found {checked['dtype']!r}.")
    if not (_are(shape, int) and len(shape) in (1, 3) and 0 < math.prod(shape) <= MOST_NUMBERS):
        raise DataError(f"{folder.model}: shape: found {str(shape)[:60]}.")
    if not _are(classes, str) or not all(_are(checked[k], int, float) for k in ("mean", "std")):
        raise DataError(f"{folder.model}: classes must be names, mean and std numbers.")
    return checked


def _are(values: Any, *types: type) -> bool:
    return isinstance(values, list) and bool(values) and all(type(v) in types for v in values)
