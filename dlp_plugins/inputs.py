"""Descriptors and labels as a caller gives them, checked and brought to one form.

Shapes: n points, d numbers each, c classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlp_plugins._threads import row_slices
from dlp_plugins.errors import DataError, FeatureError, LabelError

UNLABELED = -1
BLOCK_ENTRIES = 2**18  # numbers of a block of rows: its copies in float64 stay in cache
# Classes are counted up to the largest label. One far beyond the labels that occur is an identifier
# or a mistake, and would take memory for classes that no point has.
CLASSES_PER_LABEL, FEW_CLASSES = 10, 1000


def to_descriptors(x: Any) -> Tensor:
    """Descriptors [n, d] as a floating-point tensor without a gradient, on the device they were on.

    Args:
        x: a tensor, a NumPy array or anything that NumPy makes an array of, of real numbers.

    Raises:
        FeatureError: not [n >= 1, d >= 1], not real numbers, or NaN or infinity among them.
    """
    x = _to_tensor(x, "Descriptors", FeatureError)
    if x.is_complex():
        raise FeatureError(f"Descriptors must be real numbers; found {x.dtype}.")
    x = x if x.is_floating_point() else x.double()
    check_descriptors(x)
    return x


def to_labels(labels: Any) -> Tensor:
    """Labels [n] as int64, -1 where there is none.

    Args:
        labels: integers or booleans, as `to_descriptors` takes numbers.

    Raises:
        LabelError: not [n], not whole numbers, or beyond int64.
    """
    labels = _to_tensor(labels, "Labels", LabelError)
    if labels.numel() and (labels.is_floating_point() or labels.is_complex()):
        raise LabelError(f"Labels must be integers; found {labels.dtype}.")
    if labels.ndim != 1:
        raise LabelError(f"Labels must be [n], one for each point; found {list(labels.shape)}.")
    if labels.dtype == torch.uint64:
        large = labels.cpu().numpy() > np.iinfo(np.int64).max
        if large.any():
            at = int(large.argmax())
            raise LabelError(f"Label {labels[at].item()} of point {at} is too large for a class.")
    return labels.long()


def count_classes(labels: Tensor) -> int:
    """c: the largest of labels [n] plus one.

    Raises:
        LabelError: that is far more than the classes that occur.
    """
    if len(labels) == 0:
        return 0
    largest = int(labels.max())
    occurring = len(labels[labels >= 0].unique())
    if largest >= max(FEW_CLASSES, CLASSES_PER_LABEL * occurring):
        raise LabelError(
            f"Label {largest} of point {int(labels.argmax())} makes {largest + 1:,} classes, of "
            f"which {occurring:,} occur. Number the classes from 0, or give num_classes."
        )
    return largest + 1


def check_descriptors(descriptors: Tensor) -> None:
    """Raise FeatureError unless descriptors are [n >= 1, d >= 1] and finite."""
    if descriptors.ndim != 2 or 0 in descriptors.shape:
        raise FeatureError(
            f"Descriptors must be [n, d] with at least one point; got {tuple(descriptors.shape)}."
        )
    finite = torch.isfinite(descriptors).all(dim=1)
    if not finite.all():
        bad = (~finite).nonzero().squeeze(1)
        raise FeatureError(
            f"{len(bad)} of {len(descriptors)} descriptors hold NaN or infinity; the first is row "
            f"{int(bad[0])}. Remove or fix those rows."
        )


def check_labels(labels: Tensor, num_classes: int, n: int) -> None:
    """Raise LabelError unless integer labels [n] lie in -1..c-1 and at least one is given."""
    if labels.ndim != 1 or len(labels) != n:
        raise LabelError(f"There are {n} points but labels of shape {tuple(labels.shape)}.")
    if labels.is_floating_point():
        raise LabelError(f"Labels must be integers; found {labels.dtype}.")
    bad = (labels < UNLABELED) | (labels >= num_classes)
    if bad.any():
        at = int(bad.nonzero()[0])
        raise LabelError(
            f"Label {int(labels[at])} of point {at} is outside 0..{num_classes - 1} "
            "(-1 means unlabelled)."
        )
    if not (labels != UNLABELED).any():
        raise LabelError("No point is labelled; label propagation needs at least one.")


def unit_rows(x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Rows of x [n, d] over their Euclidean norms; a zero row stays zero.

    Each row is first divided by its largest entry, in float64, so that no scale of a row is too
    large or too small for its square.
    """
    unit = torch.empty(x.shape, dtype=dtype, device=x.device)
    for rows in row_slices(len(x), x.shape[1], BLOCK_ENTRIES):
        block = x[rows].double()
        largest = block.abs().amax(dim=1, keepdim=True)
        block = block / torch.where(largest > 0, largest, 1.0)
        unit[rows] = torch.nn.functional.normalize(block, dim=1).to(dtype)
    return unit


def _to_tensor(x: Any, what: str, error: type[DataError]) -> Tensor:
    if isinstance(x, Tensor) and x.layout == torch.strided:
        return x.detach()
    if isinstance(x, Tensor) or hasattr(x, "toarray"):  # SciPy's, without loading it
        raise error(
            f"{what} are a sparse matrix, and must be dense: give x.toarray() (torch: "
            "x.to_dense()), or the components of a TruncatedSVD where that is too large."
        )
    try:
        array = np.asarray(x)
    except ValueError as reason:  # rows of different lengths
        raise error(f"{what} must be an array of numbers: {reason}") from None
    if array.dtype.kind not in "biuf":
        raise error(f"{what} must be numbers; found {array.dtype}.")
    if array.dtype.kind == "f":
        array = array.astype(np.float32 if array.itemsize <= 4 else np.float64, copy=False)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()  # torch takes neither
    return torch.from_numpy(array)
