"""Reading images in every epoch: the same processes, whatever became of the epoch before."""

from __future__ import annotations

import os

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
