"""Real USB, on scikit-learn's digits as small colour images, on the CPU."""

from __future__ import annotations

import warnings
from argparse import Namespace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import yaml
from semilearn import BasicDataset, get_algorithm, get_config
from semilearn.core.utils import over_write_args_from_file
from semilearn.datasets.augmentation import RandAugment
from semilearn.nets.wrn import WideResNet
from torchvision import transforms as T  # noqa: N812

import dlp_plugins.hosts.usb  # noqa: F401 - registers
from dlp_plugins.registry import datasets

PER_CLASS = 4
# Threads wait for one another longer than such small images take, most of all on a busy machine.
torch.set_num_threads(1)


def small_net(num_classes: int, **_: Any) -> torch.nn.Module:
    """USB's wide ResNet, 10 layers; batch norm that settles within a short test."""
    net = WideResNet(first_stride=1, num_classes=num_classes, depth=10, widen_factor=1)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.1
    return net


def digits(views_of: str, included: bool = True) -> dict[str, Any]:
    """40 labelled, the others (or all) unlabelled, and the test images, as USB's own data sets."""
    source = datasets.build("digits")
    splits = (source.train, source.test)
    images = [np.repeat(s.images.permute(0, 2, 3, 1).numpy(), 3, axis=3) for s in splits]
    labels = [s.labels.numpy() for s in splits]
    chosen = np.concatenate([np.flatnonzero(labels[0] == c)[:PER_CLASS] for c in range(10)])
    rest = np.setdiff1d(np.arange(len(labels[0])), chosen)
    others = np.concatenate([chosen, rest]) if included else rest
    plain = [T.ToTensor(), T.Normalize([0.5] * 3, [0.5] * 3)]
    weak = T.Compose([T.RandomCrop(8, padding=1), *plain])
    strong = T.Compose([T.RandomCrop(8, padding=1), RandAugment(3, 5), *plain])
    make_set = partial(BasicDataset, views_of)
    return {
        "train_lb": make_set(images[0][chosen], labels[0][chosen], 10, weak, False, strong),
        "train_ulb": make_set(images[0][others], labels[0][others], 10, weak, True, strong),
        "eval": make_set(images[1], labels[1], 10, T.Compose(plain), False),
        "test": None,
    }


def make(
    folder: Path, algorithm: str, views_of: str = "fixmatch", included: bool = True, **settings: Any
) -> Any:
    """Write a USB config file, and make the algorithm that it names, with its loaders."""
    config = {
        "algorithm": algorithm, "save_dir": str(folder), "save_name": "run",
        "dataset": "digits", "num_classes": 10, "num_labels": 40,
        "epoch": 4, "num_train_iter": 80, "num_eval_iter": 20, "num_log_iter": 1000,
        "batch_size": 32, "uratio": 1, "eval_batch_size": 450, "num_workers": 0,
        "optim": "SGD", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "ema_m": 0.9,
        "distributed": False, "ulb_dest_len": 1347 if included else 1307,
        "dlp_graph": {"name": "exact", "k": 10},
        **settings,
    }  # fmt: skip
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    read = Namespace()
    over_write_args_from_file(read, path)  # as USB's train.py reads it
    args = get_config(vars(read))
    torch.manual_seed(0)
    np.random.seed(0)
    quiet = SimpleNamespace(info=lambda *_: None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its GradScaler says that there is no CUDA
        made = get_algorithm(args, small_net, tb_log=None, logger=quiet)
    made.dataset_dict = digits(views_of, included)
    made.loader_dict = made.set_data_loader()
    return made
