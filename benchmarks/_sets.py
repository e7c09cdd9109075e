"""The sets of embeddings that measurements of labels share, and who is labelled in them.

Without torch, so that processes of other libraries hold none.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"
LABELS = "labels.npy"


def draw(y: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """[n]: so many labels of each class, -1 elsewhere."""
    rng = np.random.default_rng(seed)
    labels = np.full(len(y), -1)
    for j in np.unique(y):
        labels[rng.choice(np.flatnonzero(y == j), per_class, replace=False)] = j
    return labels


def parser_with_data(description: str | None) -> argparse.ArgumentParser:
    """Arguments of a benchmark, with `--data`, the folder of the sets."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--data", type=Path, default=DATA / "embeddings",
        help="folder of .npz files with arrays x and y",
    )  # fmt: skip
    return parser


def read_descriptors(folder: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, unit rows [n, d] float32 and classes [n] int64 of each set of a folder.

    A set is a file .npz with arrays x and y, or a file .npy beside `labels.npy`.
    """
    for path in list_sets(folder):
        yield path.stem, *read_set(path)


def list_sets(folder: Path) -> list[Path]:
    """The files of a folder's sets."""
    if not (paths := [p for p in sorted(folder.glob("*.np[yz]")) if p.name != LABELS]):
        raise SystemExit(f"{folder}: no .npz or .npy files. See benchmarks/real_descriptors.py.")
    return paths


def read_set(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows [n, d] float32 and classes [n] int64 of one file of a folder as above."""
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            x, y = arrays["x"], arrays["y"]
    else:
        x, y = np.load(path), np.load(path.with_name(LABELS))
    x = np.ascontiguousarray(x, np.float32)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(length > 0, length, 1), y.astype(np.int64)
