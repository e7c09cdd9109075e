"""True labels from a file, to measure found ones by."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from dlp_plugins.embeddings.labels import LabelFile, read_labels
from dlp_plugins.errors import LabelError
from dlp_plugins.inputs import UNLABELED


def read_truth(path: Path, given: LabelFile) -> Tensor:
    """[n] int64: position of the true class in `given.classes`, -1 where it is not known.

    A class that no label names is c, a label that cannot be found.

    Raises:
        LabelError, DataError: as `read_labels`; or no unlabelled point has a true label, or no
            class is one of the labels'.
    """
    found = read_labels(path, len(given.labels), None, given.ids)
    place = {str(name): j for j, name in enumerate(given.classes)}
    if not place.keys() & set(map(str, found.classes)):
        raise LabelError(
            f"{path}: none of its classes ({', '.join(map(str, found.classes[:5]))}) is one of the "
            f"labels' ({', '.join(list(place)[:5])}). Name classes alike in both files."
        )
    column = torch.tensor([place.get(str(name), len(given.classes)) for name in found.classes])
    truth = torch.where(found.labels >= 0, column[found.labels.clamp(min=0)], UNLABELED)
    if not (truth[given.labels == UNLABELED] != UNLABELED).any():
        raise LabelError(f"{path}: holds the true label of no unlabelled point.")
    return truth
