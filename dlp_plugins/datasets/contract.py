"""What a data set is: inputs of a training and a test split, with the labels that are known.

An input is an image [channels, height, width] of uint8, uint16 or float32, square or not, or a
vector [d] of float32. `images` holds either. 16-bit images are divided by 65535 as soon as they
are given, because torch has few operations on uint16: behind this contract there are only uint8
images, and float32 images and vectors, which are taken as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dlp_plugins.errors import DataError, LabelError
from dlp_plugins.units import counted

UNKNOWN = -1
THREADS = 4  # decoding an image releases Python's lock
CHUNK = 64  # images per task
ROWS = 4096  # inputs checked at a time
MOST_LISTED = 100  # unreadable images named in one error
UINT16_MAX = 65535
MOST_EMPTY_CLASSES = 1000  # so many classes may be more than there are labels


@dataclass(frozen=True)
class TensorImages:
    """Images or vectors in memory, or in a mapped file.

    images: [n, channels, height, width] uint8, uint16 (held as float32 in 0..1) or float32; or
        vectors [n, d] float32.
    labels: [n] int64, -1 where the true class is not known.
    unreadable: sentences by position, on images that were left out; zeros stand in their place.

    Raises:
        DataError: inputs of another shape or type.
    """

    images: Tensor
    labels: Tensor
    unreadable: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", scale_uint16(self.images))
        check_kind(self.shape, self.dtype)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, height, width), or (d,)"""
        return tuple(self.images.shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        """uint8 or float32"""
        return self.images.dtype


@dataclass(frozen=True)
class LazyImages:
    """Images that are read when they are needed: once, where those a run uses fit in memory or in a
    file, else in every epoch by the workers of a DataLoader.

    read: index to [channels, height, width], or [d], of `dtype`; or uint16 where `dtype` is
        float32. Picklable; raises DataError on a bad file.
    labels: [n] int64, -1 where the true class is not known.
    shape: (channels, height, width), or (d,), the same for every image.
    dtype: uint8 or float32, what the images have once they are read.
    skip: leave out what cannot be read, instead of stopping.

    Raises:
        DataError: another shape or type.
    """

    read: Callable[[int], Tensor]
    labels: Tensor
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.uint8
    skip: bool = False

    def __post_init__(self) -> None:
        check_kind(self.shape, self.dtype)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> Tensor:
        """The i-th image.

        Raises:
            DataError: it cannot be read, or is not of this shape and type.
        """
        image = scale_uint16(self.read(i))
        if tuple(image.shape) != self.shape or image.dtype != self.dtype:
            raise DataError(
                f"Image {i} is {list(image.shape)} of {image.dtype}; the others are "
                f"{list(self.shape)} of {self.dtype}."
            )
        if image.dtype == torch.float32 and not image.isfinite().all():
            raise DataError(f"Image {i} holds NaN or infinity.")
        return image

    def read_or_skip(self, i: int) -> tuple[Tensor, str]:
        """The i-th image and ''; or, where `skip` leaves it out, zeros and what is wrong with it.

        Raises:
            DataError: as `self[i]`, without `skip`.
        """
        try:
            return self[i], ""
        except DataError as error:
            if not self.skip:
                raise
            return torch.zeros(self.shape, dtype=self.dtype), str(error)

    @property
    def nbytes(self) -> int:
        """Memory that all of them take."""
        return len(self) * math.prod(self.shape) * self.dtype.itemsize

    def load(self, room: Tensor | None = None) -> TensorImages:
        """Read every image, by a few threads.

        Args:
            room: where they go, [n, *shape] of `dtype`; by default new memory.

        Raises:
            DataError: as `explain_unreadable`.
        """
        images = torch.empty(len(self), *self.shape, dtype=self.dtype) if room is None else room
        problems: dict[int, str] = {}

        def fill(start: int) -> None:
            for i in range(start, min(start + CHUNK, len(self))):
                images[i], problem = self.read_or_skip(i)
                if problem:
                    problems[i] = problem

        try:
            _in_threads(fill, range(0, len(self), CHUNK))
        except DataError as error:
            raise self.explain_unreadable(error) from error
        return TensorImages(images, self.labels, problems)

    def stream(self, indices: Sequence[int]) -> Iterator[Tensor]:
        """The images of these indices in order, less those left out; at most CHUNK are held.

        Raises:
            DataError: as `explain_unreadable`.
        """
        try:
            for first in range(0, len(indices), CHUNK):
                found = _in_threads(self.read_or_skip, indices[first : first + CHUNK])
                yield from (image for image, problem in found if not problem)
        except DataError as error:
            raise self.explain_unreadable(error) from error

    def explain_unreadable(self, first: DataError) -> DataError:
        """The error that names every image that cannot be read, so that all are fixed at once.

        It reads them all: to be called when `first` showed that one is bad.
        """

        problems = self.find_unreadable()
        return DataError(list_unreadable(problems, len(self))) if problems else first

    def find_unreadable(self) -> list[str]:
        """Sentences on all images that cannot be read; reads them all."""

        def problem(i: int) -> str | None:
            try:
                self[i]
            except DataError as error:
                return str(error)
            return None

        return [p for p in _in_threads(problem, range(len(self))) if p]


Images = TensorImages | LazyImages


@dataclass(frozen=True)
class Dataset:
    """Two splits and what a network must know of them.

    test: None where nothing is known to measure an error on.
    files: names of the training images, where they have any.
    mean, std: of each channel of an image, uint8 and uint16 pixels scaled to 0..1 and floats as
        they are; of each number of a vector, or one for all of them. Views are (x - mean) / std.

    Raises:
        DataError: no image, fewer than two classes, splits whose images differ in shape or type,
            NaN or infinity, mean and std of other channels.
        LabelError: a label out of range, or a test image without one.
    """

    train: Images
    test: Images | None
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    files: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise DataError(f"The data have {self.num_classes} classes; a classifier needs two.")
        if self.files is not None and len(self.files) != len(self.train):
            raise DataError(
                f"There are {len(self.train)} training images and {len(self.files)} file names."
            )
        splits = {"training": self.train} | ({"test": self.test} if self.test is not None else {})
        for name, split in splits.items():
            if len(split) == 0:
                raise DataError(f"The {name} split holds no image.")
            check_range(split.labels, self.num_classes, name)
            check_finite(split, name)
        self._check_statistics()
        if self.test is None:
            return
        kinds = [(s.shape, s.dtype) for s in (self.train, self.test)]
        if kinds[0] != kinds[1]:
            found = [f"{list(shape)} of {dtype}" for shape, dtype in kinds]
            raise DataError(
                f"The training images are {found[0]}, the test images {found[1]}; they must be "
                "alike."
            )
        if unlabeled := int((self.test.labels == UNKNOWN).sum()):
            raise LabelError(
                f"{unlabeled} of {len(self.test)} test images have no label, so no error can be "
                "measured on them. Take another split for the test."
            )

    def _check_statistics(self) -> None:
        channels, vectors = self.train.shape[0], len(self.train.shape) == 1
        what = f"vectors have {channels} numbers" if vectors else f"images have {channels} channels"
        given = (len(self.mean), len(self.std))
        fits = given == (channels, channels) or (vectors and given == (1, 1))
        if (
            not fits
            or not min(self.std) > 0
            or not all(map(math.isfinite, [*self.mean, *self.std]))
        ):
            raise DataError(
                f"The {what}: mean and std must be as many finite numbers"
                f"{', or one each' if vectors else ''}, std above 0; found mean "
                f"{_short(self.mean)}, std {_short(self.std)}."
            )

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def file_of(self, i: int) -> str:
        """What the i-th training image is called: its file, or else its position."""
        return str(i) if self.files is None else self.files[i]


def list_unreadable(problems: Sequence[str], total: int) -> str:
    """A sentence that names images which cannot be read, of so many in all."""
    if len(problems) == 1:
        return problems[0]
    more = len(problems) - MOST_LISTED
    listed = [*problems[:MOST_LISTED], *([f"and {more:,} more"] if more > 0 else [])]
    lines = "\n  ".join(listed)
    return f"{len(problems):,} of {counted(total, 'image')} cannot be read:\n  {lines}"


def scale_uint16(images: Tensor) -> Tensor:
    """uint16 as float32 in 0..1; any other type as it is."""
    if images.dtype != torch.uint16:
        return images
    return images.to(torch.float32).div_(UINT16_MAX)


def check_kind(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Raise DataError unless inputs of that shape are images of uint8 or float32, or vectors."""
    image = len(shape) == 3 and dtype in (torch.uint8, torch.float32)
    vector = len(shape) == 1 and dtype == torch.float32
    if not (image or vector) or min(shape) < 1:
        raise DataError(
            "The inputs must be images [channels, height, width] of uint8, uint16 or float32, or "
            f"vectors [d] of float32; these are {list(shape)} of {dtype}."
        )


def check_finite(split: Images, name: str) -> None:
    """Raise DataError where floats in memory hold NaN or infinity."""
    if not isinstance(split, TensorImages) or split.dtype != torch.float32:
        return
    for first in range(0, len(split), ROWS):
        finite = split.images[first : first + ROWS].flatten(1).isfinite().all(dim=1)
        if not finite.all():
            at = first + int((~finite).nonzero()[0])
            raise DataError(
                f"The {name} input {at} holds NaN or infinity. Remove or fix it in the file."
            )


def check_range(labels: Tensor, num_classes: int, split: str = "training") -> None:
    """Raise LabelError unless all labels are -1 or classes 0..num_classes - 1."""
    bad = (labels < UNKNOWN) | (labels >= num_classes)
    if bad.any():
        at = int(bad.nonzero()[0])
        raise LabelError(
            f"Label {int(labels[at])} of {split} image {at} is outside 0..{num_classes - 1} "
            f"({int(bad.sum())} such; -1 means unknown)."
        )


def number_classes(largest: int, count: int) -> list[str]:
    """Names of the classes 0..largest of `count` training labels without names.

    Raises:
        LabelError: far more classes than labels, which is an id taken for a label.
    """
    if largest >= max(count, MOST_EMPTY_CLASSES):
        raise LabelError(
            f"The largest of {count} training labels is {largest}, which would make {largest + 1} "
            "classes. Number the classes from 0 without gaps."
        )
    return [str(i) for i in range(largest + 1)]


def _in_threads(work: Callable, items: Iterable[int]) -> list:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, items))


def _short(numbers: Sequence[float]) -> str:
    if len(numbers) <= 5:
        return str(list(numbers))
    return f"{len(numbers)} numbers"
