"""Which examples are labelled, held out for validation, or used at all.

Labels are [n] int64, -1 where the class is not known; indices are sorted int64 on the CPU. A choice
depends on the labels, the numbers asked for and the seed alone, never on the global random state.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dlp_plugins.datasets._arrays import WITH_KEYS, read_array, split_key
from dlp_plugins.datasets.contract import (
    UNKNOWN,
    Images,
    LazyImages,
    TensorImages,
    check_range,
)
from dlp_plugins.errors import DataError, LabelError

# One stream of random numbers for each purpose, so that the same seed gives unrelated choices.
LABELED, VALIDATION, SUBSET = range(3)


def choose_labeled(
    labels: Tensor,
    num_labeled: int | None,
    num_classes: int,
    seed: int,
    among: Tensor | None = None,
) -> Tensor:
    """Indices of `num_labeled` labelled examples, balanced over the classes; None takes all known.

    Every class gets the same number; what cannot be divided goes to random classes, one each. A
    class that has fewer gives all it has, and the others share the rest in the same way.

    among: indices to choose from, by default all.

    Raises:
        LabelError: none asked for, more than have a known label, or a label out of range.

    Warns when a class gets none: nothing can then be predicted as that class.
    """
    known, n = _known(labels, num_classes, among)
    if len(known) == 0:
        raise LabelError(
            f"None of the {n} training images to choose from has a known label; at least one must."
        )
    if num_labeled is None:
        num_labeled = len(known)
    if not 1 <= num_labeled <= len(known):
        raise LabelError(
            f"{num_labeled} labelled examples were asked for; {len(known)} of {n} training images "
            f"have a known label. Set dataset.num_labeled to 1..{len(known)}."
        )
    chosen = _balanced(labels, known, num_labeled, num_classes, seed, LABELED)
    _warn_of_missing_classes(labels[chosen], num_classes)
    return chosen


def hold_out_validation(
    labels: Tensor,
    num_validation: int,
    num_classes: int,
    seed: int,
    among: Tensor | None = None,
) -> Tensor:
    """Indices of `num_validation` examples of known label, balanced as in `choose_labeled`.

    among: indices to choose from, by default all.

    Raises:
        LabelError: more are asked for than are left, or a label is out of range.
    """
    candidates, _ = _known(labels, num_classes, among)
    if num_validation > len(candidates):
        raise LabelError(
            f"{num_validation} validation images were asked for; {len(candidates)} are left that "
            "have a known label and are not labelled examples. Lower dataset.num_validation."
        )
    return _balanced(labels, candidates, num_validation, num_classes, seed, VALIDATION)


def _known(labels: Tensor, num_classes: int, among: Tensor | None) -> tuple[Tensor, int]:
    """Sorted indices of known label, and how many there were to choose from."""
    check_range(labels, num_classes)
    among = torch.arange(len(labels)) if among is None else among.sort().values
    return among[labels[among] != UNKNOWN], len(among)


def choose_subset(labels: Tensor, count: int, num_classes: int, seed: int) -> Tensor:
    """Indices of `count` examples to use instead of all, balanced as in `choose_labeled`.

    Examples of unknown class keep their share of the whole.

    Raises:
        DataError: more are asked for than there are, or a label is out of range.
    """
    check_range(labels, num_classes)
    n = len(labels)
    if count > n:
        raise DataError(
            f"A subset of {count} images was asked for; there are {n}. "
            "Lower dataset.num_train or dataset.num_test."
        )
    known = (labels != UNKNOWN).nonzero().squeeze(1)
    unknown = (labels == UNKNOWN).nonzero().squeeze(1)
    num_known = round(count * len(known) / n) if n else 0
    chosen = _balanced(labels, known, num_known, num_classes, seed, SUBSET)
    others = unknown[_shuffled(len(unknown), seed, SUBSET)[: count - num_known]]
    return torch.cat([chosen, others]).sort().values


def select(images: Images, indices: Tensor) -> Images:
    """The images of those indices, in their order; lazy images stay lazy."""
    if isinstance(images, TensorImages):
        assert not images.unreadable
        return TensorImages(images.images[indices], images.labels[indices])
    read = _Selected(images.read, indices.tolist())
    return LazyImages(read, images.labels[indices], images.shape, images.dtype, images.skip)


@dataclass(frozen=True)
class _Selected:
    """A picklable reader of some of the images."""

    read: Callable[[int], Tensor]
    indices: list[int]

    def __call__(self, i: int) -> Tensor:
        return self.read(self.indices[i])


def load_indices(file: str | Path, labels: Tensor) -> Tensor:
    """Labelled examples from a file: a published split, or an earlier run's labeled_indices.json.

    Formats: .json, a list or an object with the list under "labeled_indices"; .npy, a vector of
    integers; .npz or .safetensors, the vector under KEY if `file` is FILE:KEY, else the only one;
    anything else, text with an index per line.

    Raises:
        DataError: the file cannot be read as that.
        LabelError: no index; or one out of range, given twice, or of an example of unknown label.
    """
    path, key = split_key(str(file))
    try:
        found = np.asarray(_read_indices(path, key))
    except DataError as error:
        raise DataError(f"Index file {error}") from error
    except OSError as error:
        raise DataError(f"Index file {path}: cannot be read: {error.strerror or error}.") from None
    except (ValueError, KeyError, TypeError, EOFError) as error:
        raise DataError(
            f"Index file {path}: {error}. Expected: JSON, a list of integers or "
            '{"labeled_indices": [...]}; .npy or FILE.npz:KEY, a vector of integers; or text, an '
            "integer per line."
        ) from None
    if found.size == 0:
        raise LabelError(
            f"Index file {path} holds no index; at least one example must be labelled."
        )
    if found.ndim != 1 or not np.issubdtype(found.dtype, np.integer):
        raise DataError(
            f"Index file {path}: expected a flat list of integers; found {found.dtype} of shape "
            f"{list(found.shape)}."
        )
    indices = torch.from_numpy(found.astype(np.int64)).sort().values
    _check_indices(indices, labels, path)
    return indices


def _read_indices(path: Path, key: str | None) -> object:
    if path.suffix in (".npy", *WITH_KEYS):
        return read_array(path, key).numpy()
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".json":
        return [int(line) for line in text.split()]
    data = json.loads(text)
    return data["labeled_indices"] if isinstance(data, dict) else data


def _check_indices(indices: Tensor, labels: Tensor, path: Path) -> None:
    outside = indices[(indices < 0) | (indices >= len(labels))]
    if len(outside):
        raise LabelError(
            f"Index file {path}: index {int(outside[0])} is outside 0..{len(labels) - 1}, the "
            f"training split's ({len(outside)} such). Is the file meant for this data set?"
        )
    twice = indices[1:][indices[1:] == indices[:-1]]
    if len(twice):
        raise LabelError(f"Index file {path}: index {int(twice[0])} is given more than once.")
    unknown = indices[labels[indices] == UNKNOWN]
    if len(unknown):
        raise LabelError(
            f"Index file {path}: the label of image {int(unknown[0])} is not known ({len(unknown)} "
            "such), so it cannot be a labelled example."
        )


def _warn_of_missing_classes(labels: Tensor, num_classes: int) -> None:
    missing = (torch.bincount(labels, minlength=num_classes) == 0).nonzero().squeeze(1).tolist()
    if missing:
        names = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
        warnings.warn(
            f"{len(missing)} of {num_classes} classes have no labelled example (class {names}); "
            "no image can be recognised as one of them.",
            stacklevel=3,
        )


def _balanced(
    labels: Tensor, candidates: Tensor, count: int, num_classes: int, seed: int, stream: int
) -> Tensor:
    """`count` of the candidates, as even over classes as they allow."""
    shuffled = candidates[_shuffled(len(candidates), seed, stream)]
    available = torch.bincount(labels[candidates], minlength=num_classes).numpy()
    quota = _quotas(available, count, np.random.default_rng([seed, stream, 1]))
    classes = labels[shuffled]
    chosen = [shuffled[classes == j][: quota[j]] for j in range(num_classes)]
    return torch.cat(chosen).sort().values if chosen else candidates[:0]


def _shuffled(n: int, seed: int, stream: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng([seed, stream, 0]).permutation(n))


def _quotas(available: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """How many to take of each class: `count` in all, none above what is available."""
    quota = np.zeros_like(available)
    while (left := count - int(quota.sum())) > 0:
        open_classes = np.flatnonzero(quota < available)
        share = left // len(open_classes)
        if share == 0:
            quota[rng.permutation(open_classes)[:left]] += 1
        else:
            quota[open_classes] += np.minimum(share, (available - quota)[open_classes])
    return quota
