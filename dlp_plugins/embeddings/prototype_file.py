"""Class prototypes from a file, and the labels that images may have beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from dlp_plugins.embeddings.features import open_embeddings
from dlp_plugins.embeddings.ids import Ids, read_ids
from dlp_plugins.embeddings.labels import LabelFile, read_labels
from dlp_plugins.errors import DataError, FeatureError, LabelError, did_you_mean
from dlp_plugins.inputs import UNLABELED


@dataclass(frozen=True)
class Prototypes:
    """Prototypes in a file, not yet read.

    names: of the classes, in the order of the rows; else the rows' numbers.
    load: reads them, [c, d] float32, rows of unit length.
    """

    path: Path
    names: list[str] | list[int]
    load: Callable[[], Tensor]

    def labels(self, path: Path | None, points: int, ids: Ids | None) -> LabelFile:
        """Labels of the images as positions in `names`; none at all without a file.

        Raises:
            LabelError: a label that is no prototype's name or number; and as `read_labels`.
        """
        if path is None:
            return LabelFile(torch.full((points,), UNLABELED), self.names, ids)
        given = read_labels(path, points, None, ids)
        place = {str(name): j for j, name in enumerate(self.names)}
        for name in map(str, given.classes):
            if name not in place:
                raise LabelError(
                    f"{path}: label '{name}' is no prototype's name or row number (0 to "
                    f"{len(place) - 1} where there are no names).{did_you_mean(name, list(place))}"
                )
        at = torch.tensor([place[str(name)] for name in given.classes])
        labels = torch.where(given.labels >= 0, at[given.labels.clamp(min=0)], UNLABELED)
        shares = given.given
        if shares is not None:
            all_classes = shares.distributions.new_zeros(len(shares.points), len(place))
            all_classes[:, at] = shares.distributions
            shares = replace(shares, distributions=all_classes)
        return LabelFile(labels, self.names, given.ids, shares)


def open_prototypes(path: Path, dim: int, names: Path | None = None) -> Prototypes:
    """Prototypes [c, dim] from a file as embeddings have it, and their names, a line each.

    Raises:
        DataError: no such file, unknown type, damaged, or another number of names.
        FeatureError: not [c, dim].
    """
    source = open_embeddings(path)
    if source.dim != dim:
        raise FeatureError(
            f"{path}: prototypes have {source.dim} numbers each and the embeddings {dim}; both "
            "must come from the same model."
        )
    if names is None:
        return Prototypes(path, list(range(source.points)), source.load)
    try:
        found = read_ids(names, source.points).values
    except DataError as error:
        raise DataError(f"{error} The names are needed of {source.points} prototypes.") from None
    return Prototypes(path, [str(name) for name in found], source.load)
