"""Class sizes as `dlp propagate --class-shares` takes them: a rule, or a file of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dlp_plugins.embeddings._files import check_file, load_array, read_csv, readable
from dlp_plugins.errors import DataError, did_you_mean
from dlp_plugins.propagation.class_shares import RULES, ClassShares, to_class_shares

FORMATS = (".csv", ".npy")


def read_class_shares(given: str, classes: Sequence[str] | Sequence[int]) -> ClassShares:
    """A rule by name ('equal', 'labels', 'estimate'), else shares from the file of that path.

    A CSV file holds columns `label` and `share`, a row for each class; an .npy file a number for
    each class, in the order of `classes`. Any numbers above 0: shares, percent or counts.

    Raises:
        ParameterError: a number is not above 0.
        DataError: no such file or rule, a class is missing, unknown or there twice.
    """
    if given in RULES:
        return given
    path = Path(given)
    if not path.suffix and not path.exists():
        raise DataError(
            f"--class-shares {given}: neither a file nor one of {', '.join(RULES)}."
            f"{did_you_mean(given, RULES)}"
        )
    check_file(path, FORMATS, "class shares")
    with readable(path):
        if path.suffix == ".npy":
            return to_class_shares(_vector(path, len(classes)))
        return to_class_shares(_by_class(path, [str(c) for c in classes]))


def _vector(path: Path, num_classes: int) -> list[float]:
    numbers = np.asarray(load_array(path, ndim=1))
    if numbers.shape != (num_classes,) or numbers.dtype.kind not in "iuf":
        raise DataError(
            f"{path}: a number for each of {num_classes:,} classes is needed; found "
            f"{numbers.dtype} {list(numbers.shape)}."
        )
    return numbers.astype(float).tolist()


def _by_class(path: Path, classes: list[str]) -> list[float]:
    rows = [row for row in read_csv(path) if any(cell.strip() for cell in row)]
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    if sorted(header) != ["label", "share"]:
        raise DataError(f"{path}: the first line must name the columns label,share.")
    at = (header.index("label"), header.index("share"))
    found: dict[str, float] = {}
    for line, row in enumerate(rows[1:], start=2):
        if len(row) != 2:
            raise DataError(f"{path}, line {line}: expected a label and a share; found {row}.")
        name, text = row[at[0]].strip(), row[at[1]].strip()
        if name not in classes:
            raise DataError(
                f"{path}, line {line}: no point is labelled '{name}'.{did_you_mean(name, classes)}"
            )
        if name in found:
            raise DataError(f"{path}, line {line}: class '{name}' is there twice.")
        try:
            found[name] = float(text)
        except ValueError:
            raise DataError(f"{path}, line {line}: '{text}' is not a number.") from None
    if missing := [name for name in classes if name not in found]:
        raise DataError(f"{path}: no share is given for {', '.join(missing[:5])}.")
    return [found[name] for name in classes]
