"""The sets of embeddings that measurements of labels share, and who is labelled in them.

Without torch, so that processes of other libraries hold none.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"


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
