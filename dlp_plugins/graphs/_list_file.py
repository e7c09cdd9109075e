"""Neighbour lists as a file: SciPy's CSR layout in .npz, or arrays of any neighbour search.

Arrays of a file, n points:
    data, indices, indptr, shape    a sparse matrix [n, n] as `scipy.sparse.save_npz` writes it
    indices, distances              [n, k], as most libraries return them; -1 where there is none
    indices, similarities           the same with cosines
Further arrays are left alone; ours has `settings`, a text in JSON.
"""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dlp_plugins._files import npz, writing
from dlp_plugins.errors import DataError

Holds = Literal["similarity", "cosine_distance", "distance"]
MAX_COLUMNS = 2**31 - 1
ROUNDING = 0.01  # of cosines that were stored in few bits


@dataclass(frozen=True)
class Lists:
    """Neighbours of n points as rows of a sparse matrix.

    indptr: [n + 1] int64. indices: [nnz] int32. values: [nnz] float32. settings: how they were
    found, where the file tells it.
    """

    indptr: np.ndarray
    indices: np.ndarray
    values: np.ndarray
    settings: dict[str, Any]

    @classmethod
    def of_rows(cls, indices: np.ndarray, values: np.ndarray, settings: dict[str, Any]) -> Lists:
        """Of indices [n, k], -1 where there is none, and the values beside them."""
        found = indices >= 0
        indptr = np.append(0, np.cumsum(found.sum(axis=1, dtype=np.int64)))
        return cls(
            indptr, indices[found].astype(np.int32), values[found].astype(np.float32), settings
        )

    @property
    def num_points(self) -> int:
        return len(self.indptr) - 1

    def padded(self, k: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The k largest values of each row, without the point itself: indices and values [n, k].

        Rows with fewer have -1 and 0 at their end. By default k is that of the longest row. Of a
        neighbour that is named twice the larger value counts.
        """
        n = self.num_points
        k = n if k is None else k
        counts = np.diff(self.indptr)
        row = np.repeat(np.arange(n), counts)
        others = self.indices != row
        row, column, value = row[others], self.indices[others], self.values[others]
        order = np.lexsort([-value, row])
        row, column, value = row[order], column[order], value[order]
        once = np.unique(row * n + column, return_index=True)[1]
        if len(once) < len(row):
            once.sort()
            row, column, value = row[once], column[once], value[once]
        first = np.searchsorted(row, np.arange(n))
        place = np.arange(len(row)) - first[row]
        width = min(k, int(place.max(initial=-1)) + 1)
        kept = place < width
        indices = np.full((n, width), -1, dtype=np.int32)
        values = np.zeros((n, width), dtype=np.float32)
        indices[row[kept], place[kept]] = column[kept]
        values[row[kept], place[kept]] = value[kept]
        return indices, values


def read_lists(path: Path, holds: Holds = "similarity", option: str = "graph.holds=") -> Lists:
    """The lists of a file, values as cosines.

    Args:
        holds: what its values are; 'distance' is Euclidean, between rows of unit length. Arrays
            called `similarities` are cosines in any case.
        option: how the caller is told that, for errors.

    Raises:
        DataError: the file is missing, too large for the memory that is free, or holds no lists.
    """
    arrays = _arrays(path)
    settings = _settings(path, arrays)
    if {"data", "indptr", "shape"} <= arrays.keys():
        found = _from_csr(path, arrays, settings)
    elif {"distances", "similarities"} & arrays.keys():
        found = _from_lists(path, arrays, settings)
        holds = "similarity" if "similarities" in arrays else holds
        if holds == "similarity" and "distances" in arrays:
            raise DataError(
                f"{path} holds distances. Give {option}cosine_distance, or {option}distance where "
                "they are Euclidean."
            )
    else:
        raise DataError(
            f"{path}: found the arrays {', '.join(sorted(arrays)) or 'none'}; expected data, "
            "indices, indptr and shape (scipy.sparse.save_npz), or indices with distances or "
            "similarities."
        )
    if not np.isfinite(found.values).all():
        raise DataError(f"{path}: some values are NaN or infinite. Remove them.")
    return replace(found, values=to_cosines(found.values, holds, option))


def read_settings(path: Path) -> dict[str, Any]:
    """How the lists of a file were found, where it tells; only that is read.

    Raises:
        DataError: as `read_lists`.
    """
    return _settings(path, _arrays(path, only=("settings",)))


def most_neighbors(path: Path) -> int:
    """How many neighbours a file has of a point at most, the point itself perhaps among them.

    Of the file only what tells is read, so that ours takes no time however many points it has; 0
    where it holds no lists, which `read_lists` explains.

    Raises:
        DataError: as `read_lists`.
    """
    if type(known := read_settings(path).get("k")) is int and known > 0:
        return known
    if (indptr := _arrays(path, only=("indptr",)).get("indptr")) is None:
        shape = _shape(path, "indices")
        return shape[1] if len(shape) == 2 else 0
    whole = indptr.ndim == 1 and indptr.dtype.kind in "iu"
    return int(np.diff(indptr.astype(np.int64)).max(initial=0)) if whole else 0


def to_cosines(values: np.ndarray, holds: Holds, option: str = "graph.holds=") -> np.ndarray:
    """Cosines of similarities, or of distances between rows of unit length.

    option: as `read_lists` takes it.

    Raises:
        DataError: they are outside -1..1.
    """
    cosines = values
    if holds == "cosine_distance":
        cosines = 1 - values
    elif holds == "distance":
        cosines = 1 - np.square(values) / 2  # |a - b|^2 = 2 - 2 a.b
    if np.abs(cosines).max(initial=0) > 1 + ROUNDING:
        raise DataError(
            f"Neighbour lists: values of {values.min():.3g} to {values.max():.3g} are no {holds} "
            "of rows of unit length. Divide the embeddings by their norms before the search, or "
            f"say what the values are: {option}similarity, cosine_distance or distance."
        )
    return cosines


def write_lists(path: Path, lists: Lists) -> None:
    """Write lists of cosines in SciPy's CSR layout.

    Raises:
        SaveError: the file cannot be written.
    """
    n = lists.num_points
    arrays = {
        "format": np.array(b"csr"),
        "shape": np.array([n, n]),
        "indptr": lists.indptr,
        "indices": lists.indices,
        "data": lists.values,
        "settings": np.array(json.dumps(lists.settings)),
    }
    with writing.replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # a name may be anything


def _arrays(path: Path, only: Collection[str] | None = None) -> dict[str, np.ndarray]:
    with _opened(path) as held:
        wanted = {name: held[name] for name in held if only is None or name in only}
        npz.check_size(path, sum(member.nbytes for member in wanted.values()))
        return {name: member.load(path) for name, member in wanted.items()}


def _shape(path: Path, name: str) -> tuple[int, ...]:
    """Of an array; of none where there is no such array."""
    with _opened(path) as held:
        return held[name].shape if name in held else ()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[dict[str, npz.Member]]:
    if not path.is_file():
        raise DataError(f"{path}: there is no such file.")
    try:
        with zipfile.ZipFile(path) as archive:
            yield npz.members(archive)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, MemoryError) as error:
        raise DataError(f"{path} cannot be read as .npz: {error}") from error


def _settings(path: Path, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    if "settings" not in arrays:
        return {}
    try:
        found = json.loads(str(arrays["settings"]))
    except ValueError as error:
        raise DataError(f"{path}: its array `settings` is no JSON: {error}") from error
    return found if isinstance(found, dict) else {}


def _from_csr(path: Path, arrays: dict[str, np.ndarray], settings: dict[str, Any]) -> Lists:
    form = arrays.get("format", np.array(b"csr"))
    if form.shape != () or form.item() not in (b"csr", "csr"):
        raise DataError(f"{path} holds a sparse matrix of another layout; save it as CSR.")
    shape, indptr = arrays["shape"], arrays["indptr"]
    indices, data = arrays.get("indices"), arrays["data"]
    square = shape.shape == (2,) and shape[0] == shape[1] and shape[0] <= MAX_COLUMNS
    n = int(shape[0]) if square else -1
    whole = (
        square
        and indices is not None
        and indptr.dtype.kind in "iu"
        and indices.dtype.kind in "iu"
        and data.dtype.kind in "fiub"
        and indptr.shape == (n + 1,)
        and indices.ndim == 1
        and indices.shape == data.shape
        and indptr[0] == 0
        and indptr[-1] == len(indices)
        and bool((np.diff(indptr) >= 0).all())
        and (len(indices) == 0 or (indices.min() >= 0 and indices.max() < n))
    )
    if not whole or indices is None:
        raise DataError(f"{path} holds no square sparse matrix in CSR form whose indices fit.")
    return Lists(
        indptr.astype(np.int64), indices.astype(np.int32), data.astype(np.float32), settings
    )


def _from_lists(path: Path, arrays: dict[str, np.ndarray], settings: dict[str, Any]) -> Lists:
    indices = arrays.get("indices")
    values = arrays["similarities"] if "similarities" in arrays else arrays["distances"]
    if (
        indices is None
        or indices.dtype.kind not in "iu"
        or values.dtype.kind not in "fiu"
        or indices.ndim != 2
        or indices.shape != values.shape
        or len(indices) > MAX_COLUMNS
    ):
        raise DataError(f"{path}: `indices` and the values beside them must both be [n, k].")
    found = indices >= 0 if indices.dtype.kind == "i" else indices < len(indices)
    if (indices[found] >= len(indices)).any():
        raise DataError(
            f"{path}: an index is {indices.max():,}, but there are {len(indices):,} rows."
        )
    rows = indices.astype(np.int64)
    rows[~found] = -1
    return Lists.of_rows(rows, values, settings)
