"""The principal components of CIFAR-10's pixels, for benchmarks with `--data`.

    python benchmarks/real_descriptors.py ../shared/data/cifar10 real
    python benchmarks/graph_speed.py --data real

Writes `real/pixels.npy`, 128 components of the 50,000 training images, and `real/labels.npy`. Any
file that `dlp embed` makes of the same images can lie beside them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from dlp_plugins import registry

COMPONENTS = 128


def principal_components(x: np.ndarray, count: int) -> np.ndarray:
    """[n, count] of x [n, d], about its mean."""
    x = x - x.mean(axis=0)
    return x @ np.linalg.eigh(x.T @ x)[1][:, ::-1][:, :count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("images", type=Path, help="folder of CIFAR-10 as Parquet files")
    parser.add_argument("out", type=Path, help="folder for the descriptors")
    arguments = parser.parse_args()
    train = registry.datasets.build("cifar10", path=str(arguments.images)).train
    arguments.out.mkdir(parents=True, exist_ok=True)
    pixels = train.images.numpy().reshape(len(train.labels), -1).astype(np.float32)
    np.save(arguments.out / "pixels.npy", principal_components(pixels, COMPONENTS))
    np.save(arguments.out / "labels.npy", train.labels.numpy())


if __name__ == "__main__":
    main()
