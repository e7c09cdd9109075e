"""Several labels for a point, and weights of labels, from the rows of a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dlp_plugins.errors import LabelError
from dlp_plugins.refiners.contract import Given


def check_weights(path: Path, weights: np.ndarray | None, known: np.ndarray) -> np.ndarray:
    """Weights [l] float64 of the l rows that hold a label; 1 where the file has no weights.

    Args:
        weights: [rows], as the file holds them.
        known: [rows] bool, which rows hold a label.

    Raises:
        LabelError: another number of weights than rows, or one that is not a number at least 0.
    """
    if weights is None:
        return np.ones(int(known.sum()))
    if weights.shape != known.shape:
        raise LabelError(f"{path}: {len(known):,} labels have {len(weights):,} weights.")
    found = np.empty(int(known.sum()))
    for i, (row, value) in enumerate(zip(np.flatnonzero(known), weights[known], strict=True)):
        try:
            found[i] = float(value)
        except (TypeError, ValueError):
            found[i] = np.nan
        if not 0 <= found[i] < np.inf:
            raise LabelError(
                f"{path}: the weight of the label in row {row:,} (counted from 0) must be a number "
                f"at least 0; found {value!r}."
            )
    return found


def to_distributions(
    path: Path,
    points: np.ndarray,
    classes: np.ndarray,
    weights: np.ndarray,
    num_classes: int,
    whole: bool,
) -> Given:
    """From l labels, of which several may belong to one point.

    Args:
        points, classes, weights: [l], the point of each label, its class and its weight.
        whole: each label is whole, and the rows of `distributions` hold weights, not shares.

    Raises:
        LabelError: all weights are 0.
    """
    used = weights > 0
    if not used.any():
        raise LabelError(f"{path}: every label has weight 0; label propagation needs at least one.")
    labeled, place = np.unique(points[used], return_inverse=True)
    mass = np.zeros((len(labeled), num_classes))
    # a whole label that occurs twice counts once
    add = np.maximum if whole else np.add
    add.at(mass, (place, classes[used]), weights[used])
    total = mass.sum(axis=1)
    if whole:
        total = np.ones_like(total)
    return Given(
        torch.from_numpy(labeled),
        torch.from_numpy(mass / total[:, None]).float(),
        torch.from_numpy(total).float(),
    )
