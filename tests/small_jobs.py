"""Small jobs of the commands that write files, and whether two of them gave the same."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from child import dlp
from PIL import Image
from sklearn.datasets import load_digits

# Of a line of metrics; all else must be the same.
TIMES = {"seconds", "images_per_second", "propagation_seconds", "peak_memory_mb"}
TINY = [
    "dataset.num_train=200", "dataset.num_test=50", "dataset.num_labeled=20", "backbone.width=4",
    "training.stage_one_epochs=4", "training.stage_one_steps=4", "training.stage_two_epochs=6",
    "training.checkpoint_seconds=0.02", "graph.k=5", "training.precision=float32",
]  # fmt: skip
RUN = ["run", "digits", "--device", "cpu", *(w for s in TINY for w in ("--set", s))]
BENCH = [*RUN, "--vary", "solver=cg,power", "--out", "bench"]
BENCH[0] = "bench"
EMBED = ["embed", "photos", "--out", "x.npy", "--size", "32", "--device", "cpu"]
PROPAGATE = ["propagate", "e.npy", "--labels", "y.csv", "--out", "o.csv", "--device", "cpu"]
STORED = [
    *PROPAGATE, "--on-disk", "--probabilities", "--set", "graph=cells", "--set", "refiner=none",
    "--set", "transform=none",
]  # fmt: skip
JOBS = {"run": [*RUN, "--out", "run"], "embed": EMBED, "propagate": PROPAGATE, "bench": BENCH}


class Whole(NamedTuple):
    """What the commands read and what they give where nothing happens, and how long they take."""

    folder: Path
    seconds: dict[str, float]

    @classmethod
    def make(cls, folder: Path) -> Whole:
        make_inputs(folder)
        dlp(["--version"], folder / "log", folder)  # starts the server
        seconds = {}
        for words in JOBS.values():
            started = time.monotonic()
            again(words, folder)
            seconds[words[0]] = time.monotonic() - started
        return cls(folder, seconds)


def make_inputs(folder: Path) -> None:
    images, labels = load_digits(return_X_y=True)
    for i in range(64):
        (folder / "photos" / str(labels[i])).mkdir(exist_ok=True, parents=True)
        pixels = Image.fromarray((images[i].reshape(8, 8) * 15.9).astype(np.uint8))
        pixels.resize((32, 32)).save(folder / "photos" / str(labels[i]) / f"{i}.png")
    np.save(folder / "e.npy", images.astype(np.float32))
    few = [str(y) if i % 20 == 0 else "" for i, y in enumerate(labels)]
    (folder / "y.csv").write_text("\n".join(few) + "\n")


def again(words: list[str], at: Path) -> None:
    done = dlp(words, at / "again.log", at)
    assert done.code == 0, done.out


def metrics(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def check_same_run(found: Path, expected: Path) -> None:
    assert metrics(found) == metrics(expected)
    for name in ("recipe.toml", "model.json", "labeled_indices.json", "pseudo_labels.csv"):
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name
    weights = "checkpoint/student.safetensors"
    assert (found / weights).read_bytes() == (expected / weights).read_bytes()
    ours, theirs = (json.loads((f / "summary.json").read_text()) for f in (found, expected))
    assert {k: v for k, v in ours.items() if k not in TIMES} == {
        k: v for k, v in theirs.items() if k not in TIMES
    }
    left = {p.name for p in found.rglob("*")} - {p.name for p in expected.rglob("*")}
    assert left == set()
