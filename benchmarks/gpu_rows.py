"""Rows of the paper within a time limit: `python benchmarks/gpu_rows.py --seconds S --out DIR`.

CIFAR-10 with 500 labels, the authors' split 10: supervised, the graph's pseudo-labels, the
network's own. The supervised row is stage one of the other two. Stage one keeps its epochs unless
they would take a fifth of S; stage two is shortened as a whole, cosine included, to what the speed
just measured allows. The script stops by itself before S; the same command continues from DIR,
which holds rows.json, rows.md and, while a row is unfinished, its state in parts of 15 MiB.

The data: `$DATA` or `--data`, a folder with cifar10/ (Parquet) and splits/lp_deepssl.npz.
"""

# ruff: noqa: E402 - the time counts from before the imports, which take seconds of S too

from __future__ import annotations

import time

STARTED = time.monotonic()

import argparse
import json
import os
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks import gpu_speed
from benchmarks._parts import pack, remove_others, unpack
from dlp_plugins import registry
from dlp_plugins.environment import choose_device, device_name
from dlp_plugins.recipe.check import load_recipe
from dlp_plugins.training import events
from dlp_plugins.training.run import run

STAGE_ONE_SHARE = 0.2  # of S that stage one may take
SAFETY = 0.9  # share of the time left that is planned for; a speed varies
MOST_MARGIN = 20.0  # seconds before S at which a row stops, to save and pack
# A forward pass takes a third of a step; every refresh describes all images.
FORWARD_SHARE = 1 / 3
STRETCH = 210 / 180  # the epoch at which the paper's cosine is 0, as a share of a stage's epochs


@dataclass(frozen=True)
class Study:
    """rows: name to recipe and settings; the first trains stage one alone."""

    rows: dict[str, tuple[str, dict[str, Any]]]
    settings: dict[str, Any]
    points: int


def cifar10(data: Path, cuda: bool) -> Study:
    settings: dict[str, Any] = {
        "dataset.path": str(data / "cifar10"),
        "dataset.labeled_indices": f"{data / 'splits' / 'lp_deepssl.npz'}:cifar10_500_10",
    }
    if cuda:
        settings |= {"training.precision": "bfloat16", "training.channels_last": True}
    names = ("supervised_cifar10", "lp_cifar10", "network_cifar10")
    return Study({name: (name, {}) for name in names}, settings, points=50_000)


def digits() -> Study:
    """For a test: the same three rows in seconds."""
    settings = {"dataset.num_train": 300, "dataset.num_test": 50, "backbone.width": 4}
    return Study(
        {
            "supervised_digits": ("digits", {"training.stage_two_epochs": 0}),
            "lp_digits": ("digits", {}),
            "network_digits": ("digits", {"source.name": "network"}),
        },
        settings,
        points=300,
    )


class Stop:
    """A listener that asks the run to stop at a time, as Ctrl-C does: between two steps, saved."""

    def __init__(self, at: float) -> None:
        self.at, self.asked = at, False

    def __call__(self, event: events.Event) -> None:
        running = not isinstance(event, (events.RunStarted, events.RunDone, events.RunInterrupted))
        if running and not self.asked and time.monotonic() > self.at:
            self.asked = True
            signal.raise_signal(signal.SIGINT)


class Rows:
    """What is known in DIR, and the runs in a working folder of their own."""

    def __init__(
        self, study: Study, out: Path, work: Path, device: str, started: float, seconds: float
    ) -> None:
        self.study, self.out, self.work, self.device = study, out, work, device
        self.seconds = seconds
        self.stop_at = started + seconds - min(MOST_MARGIN, 0.15 * seconds)
        self.record: dict[str, Any] = {"plan": {}, "done": {}, "state": None}
        if (out / "rows.json").is_file():
            self.record = json.loads((out / "rows.json").read_text())
        if self.record["state"] is not None:
            unpack(self.record["state"], out, work)
        self.record |= {
            "device": device_name(choose_device(device)), "torch": torch.__version__,
            "seconds": self.record.get("seconds", 0.0),
        }  # fmt: skip

    @property
    def plan(self) -> dict[str, Any]:
        return self.record["plan"]

    def left(self) -> list[str]:
        return [name for name in self.study.rows if name not in self.record["done"]]

    def run_all(self) -> bool:
        """Whether every row is done."""
        if not self.plan:
            self.plan_stage_one()
        for name in self.left():
            if time.monotonic() > self.stop_at or not self.run_row(name):
                return False
        return True

    def run_row(self, name: str) -> bool:
        """Train one row, or go on with it; whether it came to its end."""
        supervised = name == next(iter(self.study.rows))
        if not supervised and "stage_two_epochs" not in self.plan:
            self.plan_stage_two()
        recipe, own = self.study.rows[name]
        settings = {**self.study.settings, **own, **self.schedule(supervised)}
        folder = self.work / name
        started = time.monotonic()
        try:
            summary = run(
                recipe,
                folder,
                device=self.device,
                resume=(folder / "recipe.toml").is_file(),
                stage_one=None if supervised else self.stage_one,
                listeners=[Stop(self.stop_at)],
                **settings,
            )
        except KeyboardInterrupt:
            return False
        finally:
            self.record["seconds"] += time.monotonic() - started
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        self.record["done"][name] = {
            "summary": summary,
            "metrics": [json.loads(line) for line in lines],
        }
        if supervised:
            self.plan["start_seconds"] = time.monotonic() - started - summary["seconds"]
        self.write()
        return True

    @property
    def stage_one(self) -> Path:
        return self.work / next(iter(self.study.rows)) / "checkpoint" / "stage_one.safetensors"

    def schedule(self, supervised: bool) -> dict[str, Any]:
        """Epochs of both stages, and a cosine that ends where the paper's does."""
        one = self.plan["stage_one_epochs"]
        two = 0 if supervised else self.plan["stage_two_epochs"]
        return {
            "training.stage_one_epochs": one,
            "training.stage_two_epochs": two,
            "training.evaluate_every": max(1, (two or one) // 10),
            "schedule.zero_epoch": STRETCH * (two or one),
        }

    def plan_stage_one(self) -> None:
        """The recipe's epochs, or as many as a fifth of the time allows."""
        recipe = load_recipe(*self.recipe_of(0))
        t = recipe.training
        device = choose_device(self.device)
        layout = "channels-last" if t.channels_last else "contiguous"
        tiny = self.study.points < 1000
        speed = gpu_speed.measure("plain", t.precision, layout, device, tiny)["images_per_second"]
        labeled = min(t.batch_size, int(recipe.dataset.num_labeled))
        steps = t.stage_one_steps or int(recipe.dataset.num_labeled) // labeled
        fits = STAGE_ONE_SHARE * self.seconds * speed / (steps * labeled)
        self.plan["measured_images_per_second"] = speed
        self.plan["stage_one_epochs"] = max(1, min(t.stage_one_epochs, int(fits)))

    def plan_stage_two(self) -> None:
        """As many epochs as fit into the time that is left, for each of the two rows alike."""
        recipe = load_recipe(*self.recipe_of(1))
        t, n = recipe.training, self.study.points
        device = choose_device(self.device)
        summary = self.record["done"][next(iter(self.study.rows))]["summary"]
        speed = summary["images_per_second"]
        room = t.batch_size - t.labeled_per_batch
        images = (n - summary["num_labeled"]) / room * t.batch_size
        exact = registry.graphs.build("exact", k=recipe.graph.params.get("k", 50))
        descriptors = torch.nn.functional.normalize(torch.randn(n, 128, device=device))
        _, search = gpu_speed.seconds(lambda: exact.neighbors(descriptors), device)
        epoch = (images + FORWARD_SHARE * n) / speed + search
        rows = len(self.left())
        left = SAFETY * (self.stop_at - time.monotonic()) - rows * self.plan["start_seconds"]
        epochs = max(1, min(t.stage_two_epochs, int(left / rows / epoch)))
        self.plan.update(stage_two_epochs=epochs, epoch_seconds=epoch, search_seconds=search)

    def recipe_of(self, row: int) -> tuple[str, list[str]]:
        """A row's recipe and settings as `load_recipe` takes them."""
        recipe, own = list(self.study.rows.values())[row]
        settings = {**self.study.settings, **own}
        return recipe, [f"{key}={json.dumps(value)}" for key, value in settings.items()]

    def write(self) -> None:
        """rows.json last: it names the parts that belong to it."""
        members = []
        if names := self.left():
            members = [self.work / names[0]] if (self.work / names[0]).is_dir() else []
            if self.stage_one.is_file() and (len(names) > 1 or not members):
                members.append(self.stage_one)
        for previous in self.work.glob("*/checkpoint/training_previous.safetensors"):
            previous.unlink()
        self.record["state"] = pack(self.work, members, self.out) if members else None
        (self.out / "rows.md").write_text(table(self.record, self.study))
        partial = self.out / "rows.json.tmp"
        partial.write_text(json.dumps(self.record, indent=1) + "\n")
        partial.replace(self.out / "rows.json")
        remove_others(self.record["state"], self.out)


def table(record: dict[str, Any], study: Study) -> str:
    """The finished rows in Markdown; the others are 'not run'."""
    plan = record["plan"]
    lines = [
        f"{record['device']}, torch {record['torch']}, {record['seconds']:.0f} s; stage one "
        f"{plan.get('stage_one_epochs', '-')} epochs, stage two "
        f"{plan.get('stage_two_epochs', '-')}; settings {json.dumps(study.settings)}",
        "",
        "| row | stage one | error | pseudo-label accuracy | images/s | seconds |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in study.rows:
        if name not in record["done"]:
            lines.append(f"| {name} | not run | | | | |")
            continue
        s = record["done"][name]["summary"]
        figures = (
            s.get("supervised_test_error"), s.get("test_error"), s.get("pseudo_label_accuracy"),
        )  # fmt: skip
        texts = ["-" if f is None else f"{f:.2f}" for f in figures]
        texts += [f"{s['images_per_second']:.0f}", f"{s['seconds']:.0f}"]
        lines.append(f"| {name} | {' | '.join(texts)} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None, started: float = STARTED) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, required=True, help="stop before these")
    parser.add_argument("--out", type=Path, required=True, help="folder of results and state")
    parser.add_argument("--data", type=Path, help="by default $DATA")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--tiny", action="store_true", help="handwritten digits, no data needed")
    options = parser.parse_args(arguments)
    data = options.data or Path(os.environ.get("DATA", ""))
    if options.tiny:
        study = digits()
    elif (data / "cifar10").is_dir() and (data / "splits" / "lp_deepssl.npz").is_file():
        study = cifar10(data.resolve(), choose_device(options.device).type == "cuda")
    else:
        parser.error(f"{data}: no cifar10/ and splits/lp_deepssl.npz there; give --data FOLDER")
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gpu_rows.") as work:
        rows = Rows(study, options.out, Path(work), options.device, started, options.seconds)
        finished = rows.run_all()
        rows.write()
    print((options.out / "rows.md").read_text(), end="")
    if not finished:
        print(f"Not finished: the same command continues from {options.out}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
