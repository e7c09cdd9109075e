"""CIFAR-100 (Krizhevsky, 2009), from torchvision's files or Parquet files."""

from __future__ import annotations

from torchvision.datasets import CIFAR100

from dlp_plugins.datasets import _cifar
from dlp_plugins.datasets import _torchvision as tv
from dlp_plugins.datasets.contract import Dataset
from dlp_plugins.registry import datasets


@datasets.register("cifar100")
def cifar100(
    root: tv.Root = "data", download: tv.Download = False, path: _cifar.Path = None
) -> Dataset:
    """CIFAR-100: 50,000 training and 10,000 test images of 32x32, 100 classes.

    Normalised by CIFAR-10's statistics, as the paper does.

    Raises:
        DataError: the data are not there; says how to get them.
    """
    if path is not None:
        return _cifar.from_parquet("cifar100", path, "fine_label", 100)
    return _cifar.from_torchvision("cifar100", CIFAR100, "cifar-100-python", root, download)
