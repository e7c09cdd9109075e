"""Opening users' files: what is wrong with one is said in a sentence."""

from __future__ import annotations

import csv
import importlib.util
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dlp_plugins.component import install_command
from dlp_plugins.errors import DataError, MissingDependency


def check_file(path: Path, formats: tuple[str, ...], what: str) -> None:
    """Raise DataError unless the file exists, is not empty and has one of the suffixes."""
    if path.suffix not in formats:
        raise DataError(f"{path}: {what} are read from {', '.join(formats)}.")
    if not path.is_file():
        raise DataError(f"{path}: there is no such file.")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty.")


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what the readers raise on a damaged file into a sentence about that file."""
    from safetensors import SafetensorError

    # pyarrow's errors derive from ValueError and OSError; csv.Error and BadZipFile from Exception
    try:
        yield
    except (OSError, ValueError, EOFError, csv.Error, zipfile.BadZipFile, SafetensorError) as error:
        raise DataError(
            f"{path}: cannot be read as {path.suffix}: {error}. Is it whole, and of that type?"
        ) from error


def pyarrow() -> tuple[Any, Any]:
    """The modules pyarrow and pyarrow.parquet, or MissingDependency."""
    if importlib.util.find_spec("pyarrow") is None:
        raise MissingDependency(
            f"Parquet files need pyarrow, which is not installed. Run: {install_command('parquet')}"
        )
    import pyarrow
    import pyarrow.parquet

    return pyarrow, pyarrow.parquet


def load_array(path: Path, ndim: int) -> np.ndarray:
    """A memory-mapped `.npy`, or the one array of `ndim` dimensions in an `.npz`."""
    loaded = np.load(path, mmap_mode="r", allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        return only_one(path, {k: loaded[k] for k in loaded.files}, ndim)


def only_one(path: Path, arrays: dict[str, Any], ndim: int) -> Any:
    """The one array of `ndim` dimensions, or DataError with what there is."""
    fitting = {k: a for k, a in arrays.items() if len(a.shape) == ndim}
    if len(fitting) != 1:
        held = ", ".join(f"{k} {list(a.shape)}" for k, a in arrays.items()) or "nothing"
        raise DataError(
            f"{path}: exactly one array of {ndim} dimension{'s' if ndim > 1 else ''} is wanted; "
            f"the file holds {held}. Save that array on its own, as .npy for example."
        )
    return next(iter(fitting.values()))
