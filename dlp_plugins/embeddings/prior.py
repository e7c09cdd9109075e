"""Scores of points and classes from a file, brought to the order of the classes of the labels."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dlp_plugins._files import npz
from dlp_plugins.embeddings._files import (
    check_file,
    load_array,
    parquet_columns,
    pyarrow,
    read_member,
    readable,
)
from dlp_plugins.embeddings.features import NOT_NUMBERS
from dlp_plugins.embeddings.labels import LabelFile
from dlp_plugins.embeddings.memory import Memory
from dlp_plugins.errors import DataError, LabelError
from dlp_plugins.inputs import UNLABELED
from dlp_plugins.propagation.beliefs import Prior, is_sparse, to_prior
from dlp_plugins.refiners.contract import Given

FORMATS = (".npy", ".npz", ".parquet")
CLASSES = "classes"  # array of an .npz that names the columns
PROBABILITY = "probability_"  # before a class in a table that `dlp propagate` wrote


@dataclass(frozen=True)
class PriorFile:
    """Scores from a file.

    scores: [points, columns], a mapped .npy or a SciPy sparse matrix as it is.
    names: of the columns, where the file has them.
    """

    path: Path
    scores: Any
    names: list[str] | None

    def match(self, given: LabelFile, weight: float) -> tuple[LabelFile, Prior]:
        """Labels and scores of the same classes in ascending order.

        Columns without names are classes 0, 1, ... where labels are numbers, and the classes in
        ascending order where they are names.

        Raises:
            LabelError: a class without a column, or scores that are negative, NaN or infinite.
        """
        columns = self.scores.shape[1]
        numbered = all(isinstance(c, int) for c in given.classes)
        if self.names is not None:
            names: list[Any] = self.names
            if numbered and all(name.isdecimal() and name == str(int(name)) for name in names):
                names = [int(name) for name in names]
        elif numbered:
            names = list(range(columns))
        elif columns == len(given.classes):
            names = list(given.classes)
        else:
            raise LabelError(
                f"{self.path}: {columns} columns of scores for {len(given.classes)} classes. Name "
                f"the columns (.parquet, or an array '{CLASSES}' in an .npz)."
            )
        if missing := [c for c in given.classes if c not in set(names)]:
            held = ", ".join(map(str, names[:8]))
            raise LabelError(
                f"{self.path}: there is no column of scores for class {missing[0]!r}; the columns "
                f"are {held}{', ...' * (len(names) > 8)}."
            )
        order = sorted(range(columns), key=names.__getitem__)
        ordered = [names[j] for j in order]
        scores = self.scores if order == list(range(columns)) else self.scores[:, order]
        found = _renumbered(given, ordered)
        try:
            return found, to_prior(scores, weight, len(found.labels), columns)
        except LabelError as error:
            raise LabelError(f"{self.path}: {error}") from None


def with_prior(need: Memory, prior: Prior | None, points: int) -> Memory:
    """The memory of a propagation with prior scores: they, and a copy of each chunk of columns."""
    if prior is None:
        return need
    held = prior.scores
    if is_sparse(held):
        size = held.data.nbytes + held.indices.nbytes
    else:
        size = 0 if isinstance(held, np.memmap) else held.nbytes
    return replace(need, graph=need.graph + size, column=need.column + 8 * points)


def open_prior(path: Path, points: int) -> PriorFile:
    """Scores [points, classes] of a .npy, .npz (dense, or SciPy's `save_npz`) or .parquet file.

    A Parquet file holds a column of numbers for each class, whose names are the columns', perhaps
    after 'probability_' as `dlp propagate --probabilities` writes them.

    Raises:
        DataError: no such file, unknown type, damaged, or another number of points.
    """
    check_file(path, FORMATS, "prior scores")
    names = None
    with readable(path):
        if path.suffix == ".parquet":
            scores, names = _read_parquet(path)
        elif path.suffix == ".npz":
            scores, names = _read_npz(path)
        else:
            scores = load_array(path, ndim=2)
    if len(scores.shape) != 2 or scores.shape[0] != points:
        raise DataError(
            f"{path}: prior scores must be [{points:,}, classes]; found {list(scores.shape)}."
        )
    if names is not None and (len(names) != scores.shape[1] or len(set(names)) < len(names)):
        raise DataError(
            f"{path}: '{CLASSES}' must hold a different name for each of the {scores.shape[1]} "
            f"columns; found {len(set(names))} names."
        )
    return PriorFile(path, scores, names)


def _read_npz(path: Path) -> tuple[Any, list[str] | None]:
    with zipfile.ZipFile(path) as archive:
        npz.check_size(path, sum(member.file_size for member in archive.infolist()))
        held = set(archive.namelist())
    if {"format.npy", "data.npy", "shape.npy"} <= held:
        import scipy.sparse as sp

        found = sp.load_npz(path)
        if hasattr(found, "check_format"):  # SciPy's C code trusts the indices
            found.check_format(full_check=True)
        return sp.csc_array(found), None
    names = read_member(path, CLASSES)
    scores = load_array(path, ndim=2, preferred="scores")
    return scores, None if names is None else [str(name) for name in names]


def _read_parquet(path: Path) -> tuple[np.ndarray, list[str]]:
    pa, pq = pyarrow()
    held = [name for name in parquet_columns(path) if name not in NOT_NUMBERS]
    written = [name for name in held if name.startswith(PROBABILITY)]
    chosen = written or held
    npz.check_size(path, 8 * len(chosen) * pq.read_metadata(path).num_rows)
    table = pq.read_table(path, columns=chosen)
    types = pa.types
    if other := [
        f.name for f in table.schema if not (types.is_floating(f.type) or types.is_integer(f.type))
    ]:
        raise DataError(f"{path}: prior scores are columns of numbers; '{other[0]}' is not.")
    columns = [table.column(name).to_numpy().astype(np.float32) for name in chosen]
    scores = np.stack(columns, axis=1) if columns else np.empty((table.num_rows, 0), np.float32)
    return scores, [name.removeprefix(PROBABILITY) for name in chosen]


def _renumbered(given: LabelFile, classes: list[Any]) -> LabelFile:
    """The same labels among more classes."""
    place = {c: j for j, c in enumerate(classes)}
    column = torch.tensor([place[c] for c in given.classes])
    labels = torch.where(given.labels >= 0, column[given.labels.clamp(min=0)], UNLABELED)
    known = given.given
    if known is not None:
        wider = torch.zeros(len(known.points), len(classes))
        wider[:, column] = known.distributions
        known = Given(known.points, wider, known.weights)
    return replace(given, labels=labels, classes=classes, given=known)
