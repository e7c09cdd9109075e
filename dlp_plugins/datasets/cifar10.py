"""CIFAR-10 (Krizhevsky, 2009), by torchvision."""

from __future__ import annotations

from torchvision.datasets import CIFAR10

from dlp_plugins.datasets import _torchvision as tv
from dlp_plugins.datasets.contract import Dataset
from dlp_plugins.registry import datasets


@datasets.register("cifar10")
def cifar10(root: tv.Root = "data", download: tv.Download = False) -> Dataset:
    """CIFAR-10: 50,000 training and 10,000 test images of 32x32, 10 classes.

    Raises:
        DataError: the data are not there; says how to get them.
    """
    return tv.cifar("cifar10", CIFAR10, "cifar-10-batches-py", root, download)
