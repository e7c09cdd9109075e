"""Arrays in files whose room on the disk is reserved, so that a full disk is met at once."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

CAN_RESERVE = hasattr(os, "posix_fallocate")


def unnamed_array(folder: Path, dtype: Any, shape: Sequence[int]) -> np.ndarray:
    """An array in a file without a name, which is gone when nothing refers to it.

    Raises:
        OSError: the disk is full, or no file can be made there.
    """
    size = max(1, math.prod(shape) * np.dtype(dtype).itemsize)
    with tempfile.TemporaryFile(dir=folder) as file:
        reserve(file, size)
        return np.asarray(np.memmap(file, dtype, "r+", shape=tuple(shape)))


def reserve(file: IO[bytes], size: int) -> None:
    """Make a file so long.

    Raises:
        OSError: the disk is full.
    """
    if CAN_RESERVE:
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        file.truncate(size)


def nearest_folder(path: Path) -> Path:
    """The folder that is there on the way to a path that may not be."""
    return next(p for p in (path.absolute(), *path.absolute().parents) if p.is_dir())
