"""Street View House Numbers (Netzer et al., 2011), by torchvision."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import numpy as np
from pydantic import Field
from torchvision.datasets import SVHN

from dlp_plugins.datasets import _torchvision as tv
from dlp_plugins.datasets.contract import Dataset
from dlp_plugins.registry import datasets

MEAN = (0.4377, 0.4438, 0.4728)
STD = (0.1980, 0.2010, 0.1970)


@datasets.register("svhn")
def svhn(
    root: tv.Root = "data",
    download: tv.Download = False,
    extra: Annotated[bool, Field(description="add the 531,131 easier images of 'extra'")] = False,
) -> Dataset:
    """SVHN: 73,257 training and 26,032 test images of 32x32, digits 0 to 9.

    Raises:
        DataError: the data are not there; says how to get them.
    """
    names = ["train", "extra"] if extra else ["train"]
    train = [_split(name, root, download) for name in names]
    test = _split("test", root, download)
    return Dataset(
        train=tv.to_images(
            np.concatenate([s.data for s in train]), np.concatenate([s.labels for s in train])
        ),
        test=tv.to_images(test.data, test.labels),
        classes=tuple(str(i) for i in range(10)),
        mean=MEAN,
        std=STD,
    )


def _split(name: str, root: str, download: bool) -> SVHN:
    holds = f"{name}_32x32.mat"
    return tv.read("svhn", holds, root, download, partial(SVHN, root, name, download=download))
