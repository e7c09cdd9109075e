"""STL-10 (Coates et al., 2011), by torchvision."""

from __future__ import annotations

from functools import partial

import numpy as np
from torchvision.datasets import STL10

from dlp_plugins.datasets import _torchvision as tv
from dlp_plugins.datasets.contract import Dataset
from dlp_plugins.registry import datasets

MEAN = (0.4467, 0.4398, 0.4066)
STD = (0.2603, 0.2566, 0.2713)


@datasets.register("stl10")
def stl10(root: tv.Root = "data", download: tv.Download = False) -> Dataset:
    """STL-10: 5,000 labelled and 100,000 unlabelled training images of 96x96, 8,000 for the test.

    The unlabelled images have no true label and are never taken as labelled examples.

    Raises:
        DataError: the data are not there; says how to get them.
    """
    train, test = (
        tv.read("stl10", "stl10_binary", root, download, partial(STL10, root, s, download=download))
        for s in ("train+unlabeled", "test")
    )
    return Dataset(
        train=tv.to_images(train.data, np.asarray(train.labels)),
        test=tv.to_images(test.data, np.asarray(test.labels)),
        classes=tuple(train.classes),
        mean=MEAN,
        std=STD,
    )
