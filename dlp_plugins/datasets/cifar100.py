"""CIFAR-100 (Krizhevsky, 2009), by torchvision."""

from __future__ import annotations

from torchvision.datasets import CIFAR100

from dlp_plugins.datasets import _torchvision as tv
from dlp_plugins.datasets.contract import Dataset
from dlp_plugins.registry import datasets


@datasets.register("cifar100")
def cifar100(root: tv.Root = "data", download: tv.Download = False) -> Dataset:
    """CIFAR-100: 50,000 training and 10,000 test images of 32x32, 100 classes.

    Normalised by CIFAR-10's statistics, as the paper does.

    Raises:
        DataError: the data are not there; says how to get them.
    """
    return tv.cifar("cifar100", CIFAR100, "cifar-100-python", root, download)
