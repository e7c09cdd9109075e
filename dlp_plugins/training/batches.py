"""Which images each step of an epoch sees, and how they get onto the device."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dlp_plugins._files.scratch import CAN_RESERVE, unnamed_array
from dlp_plugins._threads import length
from dlp_plugins.datasets.contract import (
    UNKNOWN,
    Images,
    LazyImages,
    TensorImages,
    list_unreadable,
)
from dlp_plugins.environment import free_memory
from dlp_plugins.errors import DataError
from dlp_plugins.processes.group import Processes
from dlp_plugins.training.ahead import sent_ahead
from dlp_plugins.units import counted, format_bytes

# The share of free device memory that images may take; the rest is for training.
DEVICE_SHARE = 0.5


def labeled_only(
    labeled: Tensor, batch_size: int, steps: int | None, generator: torch.Generator
) -> list[Tensor]:
    """Batches of labelled examples: one pass, or `steps` steps over repeated passes.

    labeled: [l] int64 positions. A last, smaller batch is left out unless it is the only one.
    """
    size = min(batch_size, len(labeled))
    steps = steps or len(labeled) // size
    order = _repeat(labeled, steps * size, generator)
    return list(order.reshape(steps, size))


def two_streams(
    labeled: Tensor,
    unlabeled: Tensor,
    batch_size: int,
    labeled_per_batch: int,
    steps: int | None,
    generator: torch.Generator,
) -> list[Tensor]:
    """Batches of labelled examples (first) and unlabelled ones (after them).

    An epoch is one pass over the unlabelled; the labelled are repeated to fill their share.
    """
    room = min(batch_size - labeled_per_batch, len(unlabeled))
    steps = steps or len(unlabeled) // room
    first = _repeat(labeled, steps * labeled_per_batch, generator).reshape(steps, -1)
    second = _repeat(unlabeled, steps * room, generator).reshape(steps, room)
    return list(torch.cat([first, second], dim=1))


def _repeat(positions: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` positions: whole passes, each in an order of its own."""
    passes = -(-count // len(positions))
    orders = [torch.randperm(len(positions), generator=generator) for _ in range(passes)]
    return positions[torch.cat(orders)[:count]]


def share(positions: Tensor, num_labeled: int, processes: Processes) -> tuple[Tensor, int]:
    """This process's part of a batch [b], and how many of it are labelled, which come first.

    Where the labelled ones cannot be shared evenly, the last processes get one unlabelled more.
    """
    if processes.alone:
        return positions, num_labeled
    first = positions[:num_labeled][processes.share(num_labeled)]
    unlabeled = processes.shares(len(positions) - num_labeled)[::-1][processes.rank]
    return torch.cat([first, positions[num_labeled:][unlabeled]]), len(first)


def share_sizes(size: int, num_labeled: int, processes: Processes) -> list[int]:
    """Images of each process's part of a batch of so many."""
    labeled, unlabeled = processes.shares(num_labeled), processes.shares(size - num_labeled)[::-1]
    return [length(a) + length(b) for a, b in zip(labeled, unlabeled, strict=True)]


class _Reader(Dataset):
    def __init__(self, images: LazyImages) -> None:
        self.images = images

    def __getitem__(self, position: int) -> tuple[Tensor, str]:
        return self.images.read_or_skip(position)

    def __len__(self) -> int:
        return len(self.images)


class _Plan:
    """The positions of each batch of the present epoch, as a DataLoader asks for them."""

    batches: list[list[int]] = []  # noqa: RUF012 - replaced, never changed

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def _room_on_disk(images: LazyImages, folder: Path) -> Tensor | None:
    """Room for the images in a file without a name.

    None where the disk has no such room or would be left with less than as much again (others may
    have asked at the same time), or where the system's cache could not hold the file: then pages
    would be read one by one, which may take longer than to read the images again.
    """
    size = images.nbytes
    if not CAN_RESERVE or size > free_memory():
        return None
    dtype = torch.empty(0, dtype=images.dtype).numpy().dtype
    try:
        if shutil.disk_usage(folder).free < 2 * size:
            return None
        room = unnamed_array(folder, dtype, (len(images), *images.shape))
        return torch.from_numpy(room) if shutil.disk_usage(folder).free >= size else None
    except OSError:
        return None


class ImageStore:
    """Images or vectors by position, as uint8 or float32 batches on the device.

    Images that take no more than `memory_mb` MiB are read once and, where there is room, stay on
    the device. Those that take no more than `disk_mb`, half of the disk's free space and all of the
    free memory, which is then the file's cache, are read once into a file in `folder` without a
    name. Others are read again in every epoch by the workers of a DataLoader.

    Attributes:
        unreadable: sentences by position, on images that are left out, as the data set allows:
            zeros stand in their place, and `known` takes their labels away.
    """

    def __init__(
        self,
        images: Images,
        device: torch.device,
        workers: int,
        memory_mb: int = 4096,
        disk_mb: int = 0,
        folder: Path | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        on_disk = False
        if isinstance(images, LazyImages):
            if images.nbytes <= memory_mb * 2**20:
                images = images.load()
            elif images.nbytes <= disk_mb * 2**20 and folder is not None:
                room = _room_on_disk(images, folder)
                if on_disk := room is not None:
                    say(
                        f"Decoding {counted(len(images), 'image')} once into an unnamed file on "
                        f"the disk of {folder}, {format_bytes(images.nbytes)}."
                    )
                    images = images.load(room)
        self.device = device
        self.workers = workers
        self.source = images
        self._plan = _Plan()
        self._loader: DataLoader | None = None
        self.unreadable: dict[int, str] = {}
        if isinstance(images, TensorImages):
            self._leave_out(images.unreadable)
            fits = device.type != "cuda" or (
                not on_disk
                and images.images.nbytes < DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]
            )
            self.resident = images.images.to(device) if fits else images.images

    def batches(self, plan: Sequence[Tensor]) -> Iterator[Tensor]:
        """One batch [b, channels, height, width] or [b, d] on the device per entry of the plan.

        Raises:
            DataError: an image cannot be read; names every such one.
        """
        if not isinstance(self.source, TensorImages):
            yield from sent_ahead(self._read(self.source, plan), self.device)
        elif self.resident.device.type == self.device.type:
            yield from (self.resident[positions.to(self.device)] for positions in plan)
        else:
            chosen = (self.resident[positions.cpu()].pin_memory() for positions in plan)
            yield from sent_ahead(chosen, self.device)

    def _read(self, images: LazyImages, plan: Sequence[Tensor]) -> Iterator[Tensor]:
        """Each batch as the workers read it, in pinned memory where it goes to a GPU."""
        self._plan.batches = [p.tolist() for p in plan]
        if self._loader is None:  # its processes stay for the next epoch
            self._loader = DataLoader(
                _Reader(images),
                batch_sampler=self._plan,  # type: ignore[arg-type]
                num_workers=self.workers,
                persistent_workers=self.workers > 0,
                pin_memory=self.device.type == "cuda",
            )
        try:
            for own, (batch, problems) in zip(self._plan.batches, self._loader, strict=True):
                if any(problems):
                    self._leave_out({i: p for i, p in zip(own, problems, strict=True) if p})
                yield batch
        except DataError as error:  # a worker's, with its traceback as text
            raise images.explain_unreadable(error) from error

    def known(self, labels: Tensor) -> Tensor:
        """Labels [n] of these images, -1 for those that are left out."""
        if not self.unreadable:
            return labels
        found = labels.clone()
        found[list(self.unreadable)] = UNKNOWN
        return found

    def _leave_out(self, problems: Mapping[int, str]) -> None:
        new = {i: problem for i, problem in problems.items() if i not in self.unreadable}
        if new:
            self.unreadable |= new
            text = list_unreadable(list(new.values()), len(self.source))
            warnings.warn(f"Left out: {text}", stacklevel=2)

    def in_order(self, batch_size: int) -> Iterator[Tensor]:
        """Every image once, in order."""
        yield from self.batches(list(torch.arange(len(self.source)).split(batch_size)))
