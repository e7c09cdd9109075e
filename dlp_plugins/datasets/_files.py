"""Images in files: decoded to uint8 of one size when they are needed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.v2 import functional as tvf

from dlp_plugins.datasets.contract import LazyImages
from dlp_plugins.errors import DataError

# What Pillow raises on damaged or monstrous files.
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


@dataclass(frozen=True)
class FileReader:
    """Reads the i-th file as [3, size, size] uint8; picklable for a DataLoader's workers."""

    paths: Sequence[Path]
    size: int

    def __call__(self, i: int) -> Tensor:
        try:
            return decode(self.paths[i].read_bytes(), self.size)
        except UNREADABLE as error:
            raise DataError(
                f"{self.paths[i]} cannot be read as an image: {error}. Remove or mend that file."
            ) from error


def decode(data: bytes, size: int) -> Tensor:
    """An encoded image as RGB, turned upright, the middle square resized: [3, size, size] uint8.

    Raises:
        one of UNREADABLE.
    """
    try:
        image = Image.open(io.BytesIO(data))
    except UnidentifiedImageError:
        raise ValueError("it is of no known format") from None
    with image:
        pixels = torch.from_numpy(_pixels(image)).permute(2, 0, 1)
    if pixels.shape[1:] != (size, size):
        side = min(pixels.shape[1:])
        middle = tvf.center_crop(pixels, [side, side])
        pixels = tvf.resize(middle, [size, size], antialias=True)
    return pixels.contiguous()


def _pixels(image: Image.Image) -> np.ndarray:
    """[height, width, 3] uint8"""
    if image.mode == "F":
        raise ValueError("its pixels are floats; save it with 8 bits a channel")
    if image.mode.startswith("I"):
        # Pillow would cut 16 bits off at 255, which leaves an image white.
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    ImageOps.exif_transpose(image, in_place=True)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def images(paths: Sequence[Path], labels: Sequence[int], size: int) -> LazyImages:
    """Files as images of [3, size, size]."""
    reader = FileReader(tuple(paths), size)
    return LazyImages(reader, torch.tensor(labels, dtype=torch.long), (3, size, size))


def list_images(folder: Path) -> list[Path]:
    """Image files below a folder, in a fixed order."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMG_EXTENSIONS)


def class_folders(split: Path) -> list[Path]:
    """Sub-folders of a split, one a class, in alphabetical order."""
    return sorted(p for p in split.iterdir() if p.is_dir() and not p.name.startswith("."))


def list_split(
    split: Path, classes: Sequence[str], layout: str, name: str
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
        found = list_images(split / cls) if (split / cls).is_dir() else []
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


def channel_statistics(split: LazyImages, sample: int = 2000) -> tuple[tuple[float, ...], ...]:
    """Mean and deviation of each channel, pixels scaled to 0..1, over evenly spread images."""
    chosen = range(0, len(split), max(1, len(split) // sample))
    total, squares = torch.zeros(2, split.shape[0], dtype=torch.float64)
    for i in chosen:  # one at a time: two thousand large images would not fit in memory
        pixels = split.read(i).double().div(255).flatten(1)
        total += pixels.mean(dim=1)
        squares += pixels.square().mean(dim=1)
    mean = total / len(chosen)
    deviation = (squares / len(chosen) - mean.square()).clamp(min=0).sqrt()
    deviation = deviation.clamp(min=1e-3)  # a constant channel is no reason to divide by 0
    return tuple(mean.tolist()), tuple(deviation.tolist())
