"""What a page is made of: points with labels and certainties, or the reason why something lacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dlp_plugins.inputs import UNLABELED
from dlp_plugins.labeling.layout import principal_map

LONGEST_NAME = 60


@dataclass(frozen=True)
class Absent:
    """Something the page leaves out.

    reason: one sentence, shown in its place.
    """

    reason: str


@dataclass(frozen=True)
class Points:
    """Labels of n points by some method, and how certain it is of them.

    what: the points in the plural, 'test images'.
    certainty_name: what the certainty is, 'certainty' or 'probability'.
    labels: [n] int64, position in `classes`, -1 for none.
    certainty: [n] float, 0 to 1.
    names: of the points.
    given: [n] bool, labels that were known before; None where that is not known.
    truth: [n] int64, true classes, -1 where unknown; None if they all are.
    """

    what: str
    certainty_name: str
    labels: np.ndarray
    certainty: np.ndarray
    classes: Sequence[str]
    names: Sequence[str]
    given: np.ndarray | None = None
    truth: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def measured(self) -> np.ndarray:
        """Positions of the points by which accuracy is measured: truth known, label not given."""
        if self.truth is None:
            return np.empty(0, dtype=np.int64)
        return np.flatnonzero((self.truth != UNLABELED) & ~self.known)

    @cached_property
    def known(self) -> np.ndarray:
        """[n] bool, labels that were known before, as far as is known."""
        return np.zeros(len(self), dtype=bool) if self.given is None else self.given

    @property
    def right(self) -> np.ndarray:
        """[m] bool of the measured points; a point without a label is wrong."""
        assert self.truth is not None
        return self.labels[self.measured] == self.truth[self.measured]

    def class_name(self, label: int) -> str:
        return self.classes[label] if label >= 0 else "none"


@dataclass(frozen=True)
class Embedded:
    """Descriptors of some of the points.

    descriptors: [m, d] float32.
    points: [m] int64, their positions.
    """

    descriptors: np.ndarray
    points: np.ndarray

    @cached_property
    def map(self) -> np.ndarray:
        """[m, 2] two principal components, each axis stretched to 0..1."""
        import torch

        return principal_map(torch.from_numpy(self.descriptors)).numpy() / (2**16 - 1)


Thumbnail = Callable[[int], bytes | None]
"""The image of a point as a small PNG or JPEG; None if it cannot be shown."""


def measurable(points: Points | Absent) -> Points | Absent:
    """The points if an accuracy can be measured on them, else why not."""
    if isinstance(points, Absent) or len(points.measured):
        return points
    return Absent(f"No true labels are known of {points.what}, so nothing is measured on them.")


def sample(size: int, kept: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of 0..size-1 in ascending order, at random: those of `kept` first."""
    random = np.random.default_rng(0)
    if len(kept) >= most:
        return np.sort(random.choice(kept, most, replace=False))
    others = np.setdiff1d(np.arange(size), kept)
    more = random.choice(others, min(most - len(kept), len(others)), replace=False)
    return np.sort(np.concatenate([kept, more]))


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def printable(text: object, longest: int = LONGEST_NAME) -> str:
    """Text on one line without control characters, cut in the middle where it is long."""
    line = "".join(c if c.isprintable() else "?" for c in " ".join(str(text).split()))
    if len(line) <= longest:
        return line
    return f"{line[: longest // 2]}…{line[-(longest - longest // 2 - 1) :]}"
