"""USB's data sets whole, without its choice of labelled examples."""

from __future__ import annotations

import contextlib
import io
import random
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

import numpy as np
from semilearn.core.utils import get_dataset
from torchvision import transforms


def load(name: str, root: str, image_size: int, num_classes: int) -> tuple[Any, Any]:
    """USB's training set with every image, and its evaluation set."""
    args = Namespace(
        img_size=image_size, crop_ratio=0.875, seed=0, dataset=name, num_labels=num_classes,
        ulb_num_labels=None, lb_imb_ratio=1, ulb_imb_ratio=1,
    )  # fmt: skip
    with _same_every_time(), contextlib.redirect_stdout(io.StringIO()):
        # 'fullysupervised' puts every training image into the labelled set; imagenet's
        # unlabelled set holds every image anyway, with its label.
        found = get_dataset(args, "fullysupervised", name, num_classes, num_classes, root, True)
    return found["train_ulb" if name == "imagenet" else "train_lb"], found["eval"]


def normalization(
    split: Any,
) -> tuple[tuple[float, ...], tuple[float, ...], transforms.Compose]:
    """Mean, standard deviation, and what comes before them, of an evaluation transform."""
    *geometry, _, normalize = split.transform.transforms
    return tuple(normalize.mean), tuple(normalize.std), transforms.Compose(geometry)


@contextlib.contextmanager
def _same_every_time() -> Iterator[None]:
    """USB shuffles with the global generators; the run's own state must not change for it."""
    states = random.getstate(), np.random.get_state()
    random.seed(0)
    np.random.seed(0)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
