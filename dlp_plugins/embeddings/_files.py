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

from dlp_plugins._files import npz
from dlp_plugins.component import install_command
from dlp_plugins.errors import DataError, DlpError, MissingDependency

T = TypeVar("T")
LONGEST_REASON = 500  # characters of what a library says
AS_NPY = "Save embeddings as .npy, which are read block by block."
OBJECT_BYTES = 60  # of a cell as an object of Python


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
    try:
        yield
    except DlpError:
        raise
    # NumPy's parser of headers, zip, zlib, csv, pyarrow and safetensors have errors of their own,
    # and on damaged files they raise Python's as well: any of these means the file.
    except Exception as error:
        reason = (str(error) or type(error).__name__).rstrip(".")
        if "Python objects" in reason or "Object arrays" in reason:
            raise DataError(
                f"{path}: holds Python objects, such as text beside None, which are not read, as "
                'they may run code. Save the array with .astype(str), or .astype("float32").'
            ) from error
        raise DataError(
            f"{path}: cannot be read as {path.suffix}: {reason[:LONGEST_REASON]}. Is it whole, and "
            "of that type?"
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
    path: Path,
    ndim: int,
    key: str | None = None,
    preferred: str | None = None,
    budget: float | None = None,
) -> np.ndarray:
    """A memory-mapped `.npy`, or an array of an `.npz` (see `choose`).

    Args:
        budget: bytes that an array of an `.npz` may take, as that must be held; by default what is
            free.

    Raises:
        DataError: no such array, or one that is larger once it is unpacked.
    """
    if path.suffix != ".npz":
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(loaded, np.ndarray) or loaded.ndim == 0:
            raise DataError(f"{path}: holds a single value, not an array.")
        return loaded
    with zipfile.ZipFile(path) as archive:
        return _load(path, choose(path, npz.members(archive), ndim, key, preferred), budget)


def read_member(path: Path, key: str) -> np.ndarray | None:
    """The array of an `.npz` by its name, if it is an .npz that holds it."""
    if path.suffix != ".npz":
        return None
    with zipfile.ZipFile(path) as archive:
        if f"{key}.npy" not in archive.namelist():
            return None
        return _load(path, npz.Member(archive, archive.getinfo(f"{key}.npy")))


def _load(path: Path, member: npz.Member, budget: float | None = None) -> np.ndarray:
    if not member.shape:
        raise DataError(f"{path}: '{member.name}' is a single value, not an array.")
    return member.load(path, budget, AS_NPY)


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
    # A run of equal values takes no room in the file; as objects each takes its own.
    npz.check_size(path, OBJECT_BYTES * pq.ParquetFile(path).metadata.num_rows)
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
