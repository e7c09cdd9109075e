"""Whether a recipe's data can be trained on: every image is read, every choice is made."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dlp_plugins.datasets.contract import UNKNOWN, LazyImages, list_unreadable
from dlp_plugins.errors import DataError
from dlp_plugins.recipe.model import Recipe
from dlp_plugins.training.data import prepare_data


@dataclass(frozen=True)
class Checked:
    """What a run by the recipe would have.

    train, test: images of the data set's splits. known: training images of known class.
    labeled, validation: examples chosen for these.
    unreadable: sentences on images that a run would leave out.
    """

    train: int
    test: int
    known: int
    classes: int
    labeled: int
    validation: int
    unreadable: list[str]


def check_data(recipe: Recipe) -> Checked:
    """Read every image once, in a fraction of the memory that training takes.

    Raises:
        DataError: images that cannot be read, all of them named, unless the data set leaves such
            images out; or data that are missing or do not fit each other.
        LabelError: labels out of range, or fewer than the recipe asks for.
    """
    training = recipe.training.model_copy(
        update={"image_memory_mb": 0, "image_disk_mb": 0, "workers": 0}
    )
    data = prepare_data(recipe.model_copy(update={"training": training}), torch.device("cpu"))
    splits = [s for s in (data.dataset.train, data.dataset.test) if s is not None]
    total, problems, skip = sum(map(len, splits)), [], True
    for images in splits:
        if isinstance(images, LazyImages):
            problems += images.find_unreadable()
            skip = skip and images.skip
    if problems and not skip:
        raise DataError(list_unreadable(problems, total))
    return Checked(
        train=len(splits[0]),
        test=total - len(splits[0]),
        known=int((splits[0].labels != UNKNOWN).sum()),
        classes=data.dataset.num_classes,
        labeled=len(data.labeled),
        validation=len(data.validation_labels),
        unreadable=problems,
    )
