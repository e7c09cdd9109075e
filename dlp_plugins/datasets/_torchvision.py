"""What the data sets that torchvision reads have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
import torch
from pydantic import Field

from dlp_plugins.datasets.contract import TensorImages
from dlp_plugins.errors import DataError

T = TypeVar("T")
Root = Annotated[str, Field(description="folder that holds the data, or that they are put into")]
Download = Annotated[bool, Field(description="fetch the data if they are not there")]


def read(
    name: str, holds: str, root: str, download: bool, build: Callable[[], T], other_way: str = ""
) -> T:
    """Build a torchvision data set.

    Args:
        name: of the component. holds: the file or folder that `root` must hold.
        other_way: a sentence on another source of the same data.

    Raises:
        DataError: the data are not there or damaged, or the download fails; says how to get them.
    """
    ways = (
        f"Run again with --set dataset.download=true, which fetches them into '{root}', or with "
        f"--set dataset.root=FOLDER where FOLDER holds {holds}.{other_way}"
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
