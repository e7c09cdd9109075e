"""Opening users' files; whatever is wrong with one is reported in a sentence that names it."""

from __future__ import annotations

import csv
import importlib.util
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from dlp_plugins.component import install_command
from dlp_plugins.errors import DataError, MissingDependency

T = TypeVar("T")


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
    # pyarrow's errors derive from ValueError and OSError; csv.Error and BadZipFile from Exception
    expected: tuple[type[Exception], ...]
    expected = (OSError, ValueError, EOFError, csv.Error, zipfile.BadZipFile)
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError

        expected += (SafetensorError,)
    try:
        yield
    except expected as error:
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


def load_array(
    path: Path, ndim: int, key: str | None = None, preferred: str | None = None
) -> np.ndarray:
    """A memory-mapped `.npy`, or an array of an `.npz` (see `choose`)."""
    loaded = np.load(path, mmap_mode="r", allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        return choose(path, {k: loaded[k] for k in loaded.files}, ndim, key, preferred)


def choose(
    path: Path,
    arrays: Mapping[str, T],
    ndim: int,
    key: str | None = None,
    preferred: str | None = None,
) -> T:
    """The array called `key`, else the one called `preferred`, else the only one of that ndim.

    Raises:
        DataError: there is none, or several; the message lists what the file holds.
    """
    held = ", ".join(f"{k} {list(_shape(a))}" for k, a in arrays.items()) or "nothing"
    if key is not None:
        if key not in arrays:
            raise DataError(f"{path}: holds no '{key}'; it holds {held}.")
        return arrays[key]
    if preferred is not None and preferred in arrays:
        return arrays[preferred]
    fitting = [a for a in arrays.values() if len(_shape(a)) == ndim]
    if len(fitting) != 1:
        name = f"call it '{preferred}'" if preferred else "name it with --key"
        raise DataError(
            f"{path}: found {len(fitting)} arrays of {ndim} dimension{'s' if ndim > 1 else ''} "
            f"where one is needed; the file holds {held}. Save it alone, or {name}."
        )
    return fitting[0]


def _shape(array: Any) -> tuple[int, ...]:
    return tuple(array.shape)


def read_csv(path: Path) -> list[list[str]]:
    """Rows of a CSV file; its first bytes may be a byte-order mark."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.reader(file))


def read_parquet(path: Path, column: str) -> np.ndarray:
    """[n] of a column: as NumPy holds it, or objects with None where cells are empty.

    Raises:
        DataError: there is no such column, or its cells hold lists or tables.
    """
    pa, pq = pyarrow()
    cells = pq.read_table(path, columns=[column]).column(0)
    if pa.types.is_nested(cells.type):
        raise DataError(f"{path}: column '{column}' must hold numbers or text; found {cells.type}.")
    if cells.null_count or not pa.types.is_primitive(cells.type):
        return np.array(cells.to_pylist(), dtype=object)
    return cells.to_numpy()


def parquet_columns(path: Path) -> list[str]:
    """Names of a Parquet file's columns."""
    _, pq = pyarrow()
    return list(pq.ParquetFile(path).schema_arrow.names)
