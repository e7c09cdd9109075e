"""Images in files: decoded to uint8 of one size when they are needed.

Files may be a stranger's. So only the formats listed here are opened (Pillow knows others, one of
which starts Ghostscript), only regular files, and no image of more pixels than a large camera's.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from pydantic import Field
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from dlp_plugins.datasets.contract import LazyImages
from dlp_plugins.errors import DataError, in_words
from dlp_plugins.units import counted

FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
ENDINGS = (
    ".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
MOST_PIXELS = 2**26  # 67 million, 200 MB in memory
# What Pillow raises on damaged files.
UNREADABLE = (
    OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, ArithmeticError,
    struct.error, Image.DecompressionBombError,
)  # fmt: skip
# How an image is turned upright, by its orientation in EXIF.
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
LINKS = "links"  # key of a count
NOT_IMAGES = {"thumbs.db", "desktop.ini"}  # an operating system's own, left out without a word

Side = Annotated[int, Field(ge=4, le=1024)]
Size = Annotated[
    Side | Annotated[list[Side], Field(min_length=2, max_length=2)],
    Field(description="pixels that images are brought to: a side, or [height, width]"),
]
Unreadable = Annotated[
    Literal["stop", "skip"],
    Field(description="images that cannot be read: all are named, and the run stops or goes on"),
]


def height_and_width(size: int | Sequence[int]) -> tuple[int, int]:
    """What the parameter `image_size` of a data set selects."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


@dataclass(frozen=True)
class FileReader:
    """Reads the i-th file as [3, height, width] uint8; picklable for a DataLoader's workers."""

    paths: Sequence[Path]
    size: tuple[int, int]
    interpolation: str = "bilinear"

    def __call__(self, i: int) -> Tensor:
        path = self.paths[i]
        try:
            if not stat.S_ISREG(path.stat().st_mode):  # a pipe would wait, a device never end
                raise ValueError("it is not a regular file")
            with path.open("rb") as file:
                return decode(file, self.size, self.interpolation)
        except UNREADABLE as error:
            raise DataError(
                f"{path} cannot be read as an image: {error}. Remove or replace that file."
            ) from error


def decode(
    data: bytes | BinaryIO, size: tuple[int, int], interpolation: str = "bilinear"
) -> Tensor:
    """An encoded image as RGB, turned upright, its middle resized: [3, height, width] uint8.

    The middle is the largest part of the wanted proportions.

    Args:
        interpolation: 'bilinear' or 'bicubic', with antialiasing where the image shrinks.

    Raises:
        one of UNREADABLE.
    """
    source = io.BytesIO(data) if isinstance(data, bytes) else data
    try:
        image = Image.open(source, formats=FORMATS)
    except UnidentifiedImageError:
        raise ValueError(f"it is none of {', '.join(FORMATS)}") from None
    with image:
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(
                f"it has {image.width} x {image.height} pixels, more than {MOST_PIXELS:,}"
            )
        array = _pixels(image)
    if array.shape[:2] == size:
        # by NumPy, whose calls take a few microseconds less than torch's: a tenth of a small image
        return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))
    pixels = torch.from_numpy(array).permute(2, 0, 1)
    scale = min(pixels.shape[1] / size[0], pixels.shape[2] / size[1])
    middle = tvf.center_crop(pixels, [max(1, round(scale * side)) for side in size])
    mode = tvf.InterpolationMode(interpolation)
    return tvf.resize(middle, list(size), interpolation=mode, antialias=True).contiguous()


def upright(image: Image.Image) -> Image.Image:
    """As its EXIF says that it was held; one whose EXIF cannot be read is as it is.

    `ImageOps.exif_transpose` would write all of the EXIF again, which fails where any of it is odd.
    """
    image.load()  # a TIFF turns itself
    try:
        turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
    except UNREADABLE:
        return image
    return image if turn is None else image.transpose(turn)


def eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits as of 8: Pillow would cut it off at 255, which leaves an image white."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))


def _pixels(image: Image.Image) -> np.ndarray:
    """[height, width, 3] uint8"""
    if image.mode == "F":
        raise ValueError("its pixels are floats; save it with 8 bits a channel")
    image = eight_bits(upright(image))
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def images(
    paths: Sequence[Path], labels: Sequence[int], size: tuple[int, int], skip: bool = False
) -> LazyImages:
    """Files as images of [3, height, width]; skip: leave out those that cannot be read."""
    reader = FileReader(tuple(paths), size)
    return LazyImages(reader, torch.tensor(labels, dtype=torch.long), (3, *size), skip=skip)


def list_images(folder: Path, left_out: Counter[str]) -> list[Path]:
    """Image files below a folder, in a fixed order; hidden files and folders are no images.

    left_out: counts the endings of the other files, but for hidden ones, and `LINKS`: folders that
        are links and so are not entered, as they may lead round in a circle.

    Raises:
        DataError: a folder below cannot be read; a name that is no text.
    """
    found = []
    for path in _files_below(folder, left_out):
        ending = path.suffix.lower()
        if ending in ENDINGS:
            _check_name(path)
            found.append(path)
        elif path.name.lower() not in NOT_IMAGES:
            left_out[ending or "no ending"] += 1
    return sorted(found)


def _check_name(path: Path) -> None:
    """Raise DataError for a name that is no UTF-8, which no table could hold."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode(errors="backslashreplace")
        raise DataError(f"{shown}: the file's name is not UTF-8. Rename it.") from None


def _files_below(folder: Path, left_out: Counter[str]) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise DataError(f"{in_words(error)} Without it, its images would be missing.") from error

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        left_out.update(LINKS for name in folders if os.path.islink(os.path.join(place, name)))
        yield from (Path(place) / name for name in names if not name.startswith("."))


def warn_of_left_out(root: Path, left_out: Counter[str]) -> None:
    """Warn that files below `root` are not used because of their ending, and folders as links."""
    links = left_out.pop(LINKS, 0)
    if links:
        warnings.warn(
            f"Left out below {root}: {counted(links, 'link')} to other folders. Put their images "
            "there, or give these folders themselves.",
            stacklevel=3,
        )
    if left_out:
        endings = ", ".join(f"{ending} {n}" for ending, n in left_out.most_common(5))
        warnings.warn(
            f"Left out below {root}: {counted(left_out.total(), 'file')} whose ending is not an "
            f"image's: {endings}. Images end in {', '.join(ENDINGS)}.",
            stacklevel=3,
        )


def class_folders(split: Path) -> list[Path]:
    """Sub-folders of a split, one a class, in alphabetical order."""
    return sorted(p for p in split.iterdir() if p.is_dir() and not p.name.startswith("."))


def list_split(
    split: Path, classes: Sequence[str], layout: str, name: str, left_out: Counter[str]
) -> tuple[list[Path], list[int]]:
    """Files and labels of `split/<class>/*`.

    Raises:
        DataError: a folder that is no class, or a split without an image.
    """
    unknown = sorted({p.name for p in class_folders(split)} - set(classes))
    if unknown:
        raise DataError(
            f"dataset {name}: {split} has folders that are no class of the training images: "
            f"{', '.join(unknown[:5])}. {layout}"
        )
    paths: list[Path] = []
    labels: list[int] = []
    for label, cls in enumerate(classes):
        found = list_images(split / cls, left_out) if (split / cls).is_dir() else []
        paths += found
        labels += [label] * len(found)
    if not paths:
        raise DataError(f"dataset {name}: there is no image in {split}. {layout}")
    return paths, labels


def refuse_empty_classes(labels: Sequence[int], classes: Sequence[str], split: Path) -> None:
    """Raise DataError where a class of the training images has no image: nothing could teach it."""
    filled = set(labels)
    empty = [cls for label, cls in enumerate(classes) if label not in filled]
    if empty:
        raise DataError(
            f"There is no image in {split / empty[0]} ({len(empty)} such folders). Put some there, "
            "or remove the folder."
        )
