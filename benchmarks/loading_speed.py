"""Images per second of a training by where its images are: memory, a file, or read in every epoch.

    python benchmarks/loading_speed.py --data FOLDER

FOLDER holds CIFAR-10 in parquet files. The recipe quick_cifar10, its small network, labels alone;
all in turns. Each run has three epochs: the first one starts the workers, the best of the others
counts. Takes five minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from statistics import median

import torch

import dlp_plugins
from dlp_plugins.environment import describe_environment
from dlp_plugins.training import events

SETTINGS = [
    "dataset.num_labeled=3000", "dataset.num_test=200", "training.stage_one_steps=60",
    "training.stage_one_epochs=3", "training.stage_two_epochs=0", "training.evaluate_every=3",
]  # fmt: skip
IN_MEMORY = "in memory"
# What the three ways set: image_memory_mb, image_disk_mb.
WAYS = {IN_MEMORY: (4096, 0), "in a file": (0, 4096), "read by workers": (0, 0)}


def images_per_second(data: str, budgets: tuple[int, int], settings: list[str]) -> float:
    speeds: list[float] = []

    def listen(event: events.Event) -> None:
        if isinstance(event, events.EpochDone):
            speeds.append(event.metrics["images_per_second"])

    own = [f"dataset.path={data}"]
    own += [f"training.image_{k}_mb={v}" for k, v in zip(("memory", "disk"), budgets, strict=True)]
    recipe = dlp_plugins.load_recipe("quick_cifar10", [*SETTINGS, *own, *settings])
    with tempfile.TemporaryDirectory() as folder:
        dlp_plugins.run(recipe, Path(folder) / "run", listeners=[listen])
    return max(speeds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of CIFAR-10's parquet files")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--set", action="append", dest="settings", default=[])
    given = parser.parse_args()
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(given.turns):
        for name, budgets in WAYS.items():
            found[name].append(images_per_second(given.data, budgets, given.settings))
            load = os.getloadavg()[0]
            print(f"{name}: {found[name][-1]:,.0f} images/s (load {load:.1f})", flush=True)
    held = median(found[IN_MEMORY])
    for name, speeds in found.items():
        print(f"{name}: median {median(speeds):,.0f} images/s, {median(speeds) / held:.1%}")
    print(describe_environment(torch.device("cpu")))


if __name__ == "__main__":
    main()
