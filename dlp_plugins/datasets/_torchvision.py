"""What the data sets that torchvision reads have in common."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
import torch
from pydantic import Field
from torchvision.datasets import CIFAR10

from dlp_plugins.datasets.contract import Dataset, TensorImages
from dlp_plugins.errors import DataError

T = TypeVar("T")
Root = Annotated[str, Field(description="folder that holds the data, or that they are put into")]
Download = Annotated[bool, Field(description="fetch the data if they are not there")]

CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2470, 0.2435, 0.2616)


def read(name: str, holds: str, root: str, download: bool, build: Callable[[], T]) -> T:
    """Build a torchvision data set.

    Args:
        name: of the component. holds: the file or folder that `root` must hold.

    Raises:
        DataError: the data are not there or damaged, or the download fails; says how to get them.
    """
    ways = (
        f"Run again with --set dataset.download=true, which fetches them into '{root}', or with "
        f"--set dataset.root=FOLDER where FOLDER holds {holds}."
    )
    if not download and not Path(root).is_dir():
        raise DataError(f"dataset {name}: there is no folder '{root}'. {ways}")
    try:
        return build()
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        what = "the download failed" if download else f"no intact data in '{root}'"
        raise DataError(f"dataset {name}: {what} ({reason}). {ways}") from error


def to_images(pixels: np.ndarray, labels: np.ndarray | list[int]) -> TensorImages:
    """pixels: [n, channels, height, width] uint8. labels: n classes, -1 where unknown."""
    return TensorImages(
        torch.from_numpy(np.ascontiguousarray(pixels)),
        torch.as_tensor(np.asarray(labels, dtype=np.int64)),
    )


def channels_first(pixels: np.ndarray) -> np.ndarray:
    """[n, height, width, channels] to [n, channels, height, width]."""
    return pixels.transpose(0, 3, 1, 2)


def cifar(
    name: str, kind: Callable[..., CIFAR10], holds: str, root: str, download: bool
) -> Dataset:
    """CIFAR-10 or CIFAR-100, normalised alike."""
    train, test = (
        read(name, holds, root, download, partial(kind, root, t, download=download))
        for t in (True, False)
    )
    return Dataset(
        train=to_images(channels_first(train.data), train.targets),
        test=to_images(channels_first(test.data), test.targets),
        classes=tuple(train.classes),
        mean=CIFAR_MEAN,
        std=CIFAR_STD,
    )
