"""scikit-learn's handwritten digits: 1,797 images of 8x8, shipped with the package, no network."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from dlp_plugins.datasets.contract import Dataset, TensorImages
from dlp_plugins.registry import datasets

TEST_IMAGES = 450


@datasets.register("digits")
def digits() -> Dataset:
    """Handwritten digits, 8x8 grey, 10 classes: 1,347 for training, 450 for the test (stratified).

    The split is always the same. Source: Alpaydin and Kaynak, UCI 'optdigits', by scikit-learn.
    """
    raw = load_digits()
    pixels = (raw.images / 16 * 255).round().astype(np.uint8)[:, None]
    train, test = train_test_split(
        np.arange(len(pixels)), test_size=TEST_IMAGES, stratify=raw.target, random_state=0
    )
    images, labels = torch.from_numpy(pixels), torch.from_numpy(raw.target.astype(np.int64))
    scaled = pixels[train] / 255
    return Dataset(
        train=TensorImages(images[train], labels[train]),
        test=TensorImages(images[test], labels[test]),
        classes=tuple(str(i) for i in range(10)),
        mean=(float(scaled.mean()),),
        std=(float(scaled.std()),),
    )
