"""Images in files: decoded to uint8 of one size when they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from dlp_plugins.datasets.contract import LazyImages
from dlp_plugins.errors import DataError


@dataclass(frozen=True)
class FileReader:
    """Reads the i-th file as [3, size, size] uint8; picklable for a DataLoader's workers."""

    paths: Sequence[Path]
    size: int

    def __call__(self, i: int) -> Tensor:
        try:
            with Image.open(self.paths[i]) as image:
                return to_tensor(image, self.size)
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise DataError(
                f"{self.paths[i]} cannot be read as an image: {error}. Remove or mend that file."
            ) from error


def to_tensor(image: Image.Image, size: int) -> Tensor:
    """RGB, the shorter side resized to `size`, the middle cut out: [3, size, size] uint8."""
    image = image.convert("RGB")
    if image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


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


def channel_statistics(split: LazyImages, sample: int = 2000) -> tuple[tuple[float, ...], ...]:
    """Mean and deviation of each channel, pixels scaled to 0..1, over evenly spread images."""
    step = max(1, len(split) // sample)
    pixels = torch.stack([split.read(i) for i in range(0, len(split), step)])
    flat = pixels.double().div(255).transpose(0, 1).flatten(1)
    deviation = flat.std(dim=1).clamp(min=1e-3)  # a constant channel is no reason to divide by 0
    return tuple(flat.mean(dim=1).tolist()), tuple(deviation.tolist())
