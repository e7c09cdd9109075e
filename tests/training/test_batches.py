"""Reading images in every epoch: the same processes, whatever became of the epoch before."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dlp_plugins.datasets.contract import LazyImages
from dlp_plugins.training.batches import ImageStore


def position_and_process(i: int) -> Tensor:
    return torch.tensor([float(i), float(os.getpid())])


def test_workers_stay_from_epoch_to_epoch_and_follow_each_epochs_plan() -> None:
    lazy = LazyImages(position_and_process, torch.zeros(12).long(), (2,), torch.float32)
    store = ImageStore(lazy, torch.device("cpu"), workers=1, memory_mb=0)
    plans = [list(torch.randperm(12).split(size)) for size in (3, 5, 4)]
    processes = set()
    for number, plan in enumerate(plans):
        found = []
        for batch in store.batches(plan):
            found.append(batch[:, 0].long())
            processes.update(batch[:, 1].tolist())
            if number == 1:
                break  # an epoch that is broken off
        assert all(map(torch.equal, found, plan))
        assert len(found) == (1 if number == 1 else len(plan))
    assert len(processes) == 1
    assert float(os.getpid()) not in processes


read: Counter[int] = Counter()


def one_pixel(i: int) -> Tensor:
    read[i] += 1
    return torch.full((1, 1, 1), i, dtype=torch.uint8)


@pytest.mark.parametrize("free", [100, 1])
def test_images_that_memory_does_not_hold_go_to_a_file_where_the_disk_has_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    read.clear()
    lazy = LazyImages(one_pixel, torch.zeros(6).long(), (1, 1, 1))
    cpu = torch.device("cpu")
    said: list[str] = []
    store = ImageStore(lazy, cpu, 0, memory_mb=0, disk_mb=1, folder=tmp_path, say=said.append)
    assert ["Decoding 6 images once" in text for text in said] == [True] * (free == 100)
    for _ in range(2):
        found = torch.cat(list(store.batches([torch.tensor([5, 0, 3]), torch.tensor([1])])))
        assert found.flatten().tolist() == [5, 0, 3, 1]
    assert set(read.values()) == ({1} if free == 100 else {2})
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_means_reading_in_every_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: object, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dlp_plugins._files.scratch.reserve", full)
    lazy = LazyImages(one_pixel, torch.zeros(6).long(), (1, 1, 1))
    cpu = torch.device("cpu")
    store = ImageStore(lazy, cpu, workers=0, memory_mb=0, disk_mb=1, folder=tmp_path)
    assert store.source is lazy
