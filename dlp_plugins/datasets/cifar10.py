"""CIFAR-10 (Krizhevsky, 2009), from torchvision's files or Parquet files."""

from __future__ import annotations

from torchvision.datasets import CIFAR10

from dlp_plugins.datasets import _cifar
from dlp_plugins.datasets import _torchvision as tv
from dlp_plugins.datasets.contract import Dataset
from dlp_plugins.registry import datasets


@datasets.register("cifar10")
def cifar10(
    root: tv.Root = "data", download: tv.Download = False, path: _cifar.Path = None
) -> Dataset:
    """CIFAR-10: 50,000 training and 10,000 test images of 32x32, 10 classes.

    Raises:
        DataError: the data are not there; says how to get them.
    """
    if path is not None:
        return _cifar.from_parquet("cifar10", path, "label", 10)
    return _cifar.from_torchvision("cifar10", CIFAR10, "cifar-10-batches-py", root, download)
