"""Arrays in files: .npy, and by a key in .npz and .safetensors, written FILE:KEY."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from dlp_plugins.errors import DataError, did_you_mean

WITH_KEYS = (".npz", ".safetensors")
MOST_LISTED = 20  # keys named in an error


def split_key(text: str) -> tuple[Path, str | None]:
    """FILE and KEY of FILE:KEY; no key unless the file's ending has keys.

    >>> split_key("splits.npz:cifar10_500_10")
    (PosixPath('splits.npz'), 'cifar10_500_10')
    """
    match = re.fullmatch(r"(.+?\.(?:npz|safetensors)):(.+)", text)
    if match is None or Path(text).exists():
        return Path(text), None
    return Path(match[1]), match[2]


def read_array(path: Path, key: str | None, default: str | None = None) -> Tensor:
    """The array of an .npy, or that under a key of an .npz or .safetensors.

    Args:
        default: key to take where none is given and the file holds several arrays.

    Raises:
        DataError: no such file or key, another ending, or a damaged file.
    """
    if path.suffix not in (".npy", *WITH_KEYS):
        raise DataError(f"{path}: arrays are read from .npy, .npz and .safetensors.")
    if not path.is_file():
        raise DataError(f"{path}: there is no such file.")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return file.get_tensor(_choose(path, list(file.keys()), key, default))
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if path.suffix == ".npy":
                array = loaded
            else:
                array = loaded[_choose(path, loaded.files, key, default)]
        return to_tensor(path, array)
    except DataError:
        raise
    # On damaged files numpy raises errors of the zip and zlib modules, of its parser and others.
    except Exception as error:
        raise DataError(
            f"{path}: cannot be read as {path.suffix} ({type(error).__name__}: {error}). Is it "
            "whole, and of that type?"
        ) from error


def _choose(path: Path, keys: list[str], key: str | None, default: str | None) -> str:
    if key is None:
        if len(keys) == 1:
            return keys[0]
        if default in keys:
            return default
    elif key in keys:
        return key
    listed = ", ".join(keys[:MOST_LISTED]) or "nothing"
    if len(keys) > MOST_LISTED:
        listed += f", ... ({len(keys)} in all)"
    wanted = key or default
    problem = (
        f"there is no '{wanted}' in it.{did_you_mean(wanted, keys)}"
        if wanted
        else (f"it holds {len(keys)} arrays: choose one with {path}:KEY.")
    )
    raise DataError(f"{path}: {problem} It holds {listed}.")


def to_tensor(path: Path, array: np.ndarray) -> Tensor:
    """An array of numbers as a tensor.

    Raises:
        DataError: text, objects, dates or complex numbers.
    """
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "buif":
        kind = getattr(array, "dtype", type(array).__name__)
        raise DataError(f"{path}: it holds {kind}, not numbers.")
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    if native.dtype.itemsize > 8:  # long double
        native = native.astype(np.float64)
    return torch.from_numpy(np.ascontiguousarray(native))
