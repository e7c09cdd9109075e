"""From a recipe's data set to what a run trains on: splits chosen, images on the device."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlp_plugins import registry
from dlp_plugins.datasets.contract import UNKNOWN, Dataset, Images, TensorImages
from dlp_plugins.errors import DataError
from dlp_plugins.processes.group import ALONE, Processes
from dlp_plugins.recipe.model import Recipe
from dlp_plugins.training import splits
from dlp_plugins.training.batches import ImageStore

MOST_WORKERS = 8  # processes that read images, by default
HASHED_BYTES = 64 * 2**20  # pixels that are hashed at each start, at most


@dataclass(frozen=True)
class RunData:
    """Positions count within `train`, which is the training split less validation images.

    truth: [n] int64 on the device, true labels, -1 where unknown; only for measuring.
    labeled, unlabeled: [l], [u] int64 positions on the CPU.
    indices: [n] int64 on the CPU, the place of each in the data set's own training split.
    record: what labeled_indices.json holds; indices into the data set's own training split.
    """

    dataset: Dataset
    train: ImageStore
    validation: ImageStore | None
    test: ImageStore | None
    truth: Tensor
    validation_labels: Tensor
    test_labels: Tensor
    labeled: Tensor
    unlabeled: Tensor
    indices: Tensor
    record: dict[str, Any]

    @property
    def known_labels(self) -> Tensor:
        """[n] int64 on the device: the labels that training may use, -1 elsewhere."""
        known = torch.full_like(self.truth, UNKNOWN)
        labeled = self.labeled.to(self.truth.device)
        known[labeled] = self.truth[labeled]
        return self.train.known(known)

    @property
    def num_unreadable(self) -> int:
        """Images that are left out, as the data set allows."""
        stores = (self.train, self.validation, self.test)
        return sum(len(store.unreadable) for store in stores if store is not None)


def prepare_data(
    recipe: Recipe,
    device: torch.device,
    processes: Processes = ALONE,
    scratch: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> RunData:
    """Load the data set and choose labelled and validation examples.

    Args:
        processes: those that train together, one after the other where the data are to be
            downloaded.
        scratch: folder for a file of images that memory does not hold; None: no such file.
        say: called with a sentence before such a file is written, which may take minutes.

    Raises:
        DataError, LabelError: missing or unreadable data, labels out of range, none labelled, or
            more asked for than there are; another process sees other data.
    """
    if not recipe.dataset.params.get("download"):
        data = _prepare(recipe, device, processes, scratch, say)
    else:
        data = processes.in_turn(lambda: _prepare(recipe, device, processes, scratch, say))
    if processes.from_first(data.record) != data.record:
        raise DataError(
            f"Process {processes.rank} of {processes.size} sees other data than the first one."
        )
    return data


def _prepare(
    recipe: Recipe,
    device: torch.device,
    processes: Processes,
    scratch: Path | None,
    say: Callable[[str], None],
) -> RunData:
    part = recipe.dataset
    dataset: Dataset = registry.datasets.build(part.name, **part.params)
    seed = recipe.seed if part.split_seed is None else part.split_seed
    labels, c = dataset.train.labels, dataset.num_classes
    pool = torch.arange(len(labels))
    if part.num_train is not None:
        pool = splits.choose_subset(labels, part.num_train, c, seed)
    if part.labeled_indices is not None:
        labeled = splits.load_indices(part.labeled_indices, labels)
        pool = torch.cat([pool, labeled]).unique()
        among = pool[~torch.isin(pool, labeled)]
        held_out = splits.hold_out_validation(labels, part.num_validation, c, seed, among)
    elif part.num_labeled == "all":  # that are known, less those held out
        held_out = splits.hold_out_validation(labels, part.num_validation, c, seed, pool)
        labeled = splits.choose_labeled(labels, None, c, seed, pool[~torch.isin(pool, held_out)])
    else:
        labeled = splits.choose_labeled(labels, part.num_labeled, c, seed, pool)
        among = pool[~torch.isin(pool, labeled)]
        held_out = splits.hold_out_validation(labels, part.num_validation, c, seed, among)
    kept = pool[~torch.isin(pool, held_out)]
    test = dataset.test
    if part.num_test is not None:
        if test is None:
            raise DataError("dataset.num_test: this data set has no test images. Leave it out.")
        test = splits.select(test, splits.choose_subset(test.labels, part.num_test, c, seed))
    is_labeled = torch.isin(kept, labeled)
    unlabeled = (~is_labeled).nonzero().squeeze(1)
    if recipe.training.stage_two_epochs and len(unlabeled) == 0:
        raise DataError(
            f"All {len(kept)} training images are labelled, so there is nothing to propagate to. "
            "Set dataset.num_labeled; or training.stage_two_epochs = 0 to train on labels alone."
        )
    train = splits.select(dataset.train, kept)
    validation = splits.select(dataset.train, held_out)

    t = recipe.training
    workers = t.workers
    if workers is None:
        workers = max(1, min(MOST_WORKERS, os.cpu_count() or 1) // processes.local_size)

    def store(images: Images) -> ImageStore:
        budgets = t.image_memory_mb, t.image_disk_mb
        return ImageStore(images, device, workers, *budgets, scratch, say)

    data = RunData(
        dataset=dataset,
        train=store(train),
        validation=store(validation) if len(held_out) else None,
        test=None if test is None else store(test),
        truth=train.labels.to(device),
        validation_labels=validation.labels.to(device),
        test_labels=torch.empty(0).long() if test is None else test.labels.to(device),
        labeled=is_labeled.nonzero().squeeze(1),
        unlabeled=unlabeled,
        indices=kept,
        record={
            "labeled_indices": labeled.tolist(),
            "validation_indices": held_out.tolist(),
            "num_train": len(kept),
            "data": {
                f"{name} images": fingerprint(images, dataset.classes)
                for name, images in (("training", dataset.train), ("test", dataset.test))
                if images is not None
            },
        },
    )
    if not (data.known_labels != UNKNOWN).any():
        raise DataError("None of the labelled images can be read, so there is nothing to learn.")
    return data


def fingerprint(images: Images, classes: Sequence[str]) -> str:
    """A hash of labels, class names and shape; of the paths of files, and of pixels in memory.

    Files are told apart by their path below the folder that holds all of them, so that the same
    images in another place are the same. Of many pixels, evenly spread images have to do.
    """
    kind = (tuple(images.shape), str(images.dtype), tuple(classes))
    digest = hashlib.sha256(repr(kind).encode())
    digest.update(images.labels.numpy().tobytes())
    if isinstance(images, TensorImages):
        step = 1 + images.images.nbytes // HASHED_BYTES
        digest.update(images.images[::step].contiguous().numpy().tobytes())
    elif paths := getattr(images.read, "paths", None):
        start = len(os.path.commonpath(paths))
        digest.update(os.fsencode("\0".join(str(path)[start:] for path in paths)))
    return digest.hexdigest()
