"""This project beside graphlearning, ModSSC and scikit-learn: `make bench-peers`.

    python -m benchmarks.peers [--data FOLDER] [--draws 20] [--points N] [--only METHOD ...]

For each set of embeddings one process per method, the same unit rows and labelled points for all:
accuracy at 1, 3 and 5 labels per class over 20 draws, and of one draw with 5 labels per class wall
and CPU seconds of import, graph and labels, and the largest memory of the process. A process that
takes longer than `--minutes` is ended, and its row says so. `--data` may also be a folder of
`benchmarks/real_descriptors.py`, of which `--points` takes the first.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._sets import ROOT, draw, list_sets, parser_with_data, read_set

PER_CLASS = (1, 3, 5)
SETS = {
    "oxford_pets_clip": "pets",
    "whurs19_clip": "aerial scenes",
    "cifar10_test_lite0": "CIFAR-10, ImageNet features",
    "pixels": "CIFAR-10, components of pixels",
    "network": "CIFAR-10, a trained network's descriptors",
}


def measure(method: str, path: Path, draws: int, points: int | None) -> dict[str, Any]:
    """What one child process finds of one method on one set."""
    import resource

    from benchmarks.peers.methods import METHODS, importing

    x, y = (a[:points] for a in read_set(path))
    clock = Clock()
    importing(method)
    seconds = {"import": clock.lap()}
    label = METHODS[method](x, len(np.unique(y)))
    seconds["graph"] = clock.lap()
    label(draw(y, PER_CLASS[-1], 0))
    seconds["labels"] = clock.lap()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    accuracy = np.empty((draws, len(PER_CLASS)))
    for seed in range(draws):
        for column, per_class in enumerate(PER_CLASS):
            labels = draw(y, per_class, seed)
            hidden = labels < 0
            accuracy[seed, column] = 100 * (label(labels) == y)[hidden].mean()
    return {"seconds": seconds, "peak": peak, "accuracy": accuracy.tolist()}


class Clock:
    """Wall and CPU seconds since the last lap."""

    def __init__(self) -> None:
        self.last = (time.perf_counter(), time.process_time())

    def lap(self) -> tuple[float, float]:
        now = (time.perf_counter(), time.process_time())
        passed = (now[0] - self.last[0], now[1] - self.last[1])
        self.last = (time.perf_counter(), time.process_time())
        return passed


def in_a_process(
    method: str, path: Path, draws: int, points: int | None, minutes: float
) -> dict[str, Any]:
    words = ["--child", method, "--file", str(path), "--draws", str(draws)]
    words += [] if points is None else ["--points", str(points)]
    try:
        child = subprocess.run(
            [sys.executable, "-m", "benchmarks.peers", *words],
            capture_output=True, text=True, cwd=ROOT, check=False, timeout=60 * minutes,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"error": f"not ended after {minutes:g} minutes"}
    if child.returncode:
        return {"error": (child.stderr.strip().splitlines() or ["no message"])[-1]}
    found: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    return found


def table(path: Path, methods: list[str], options: argparse.Namespace) -> None:
    x, y = (a[: options.points] for a in read_set(path))
    (n, dim), classes = x.shape, len(np.unique(y))
    print(f"\n**{SETS.get(path.stem, path.stem)}**: {n:,} x {dim:,}, {classes} classes\n")
    counts = " | ".join(f"{m} per class" for m in PER_CLASS)
    print(f"| method | {counts} | import | graph | labels | peak MiB |")
    print("| --- |" + " ---: |" * (len(PER_CLASS) + 4), flush=True)
    for method in methods:
        found = in_a_process(method, path, options.draws, options.points, options.minutes)
        if "error" in found:
            print(f"| {method} | {found['error']} |", flush=True)
            continue
        a = np.array(found["accuracy"])
        accuracy = " | ".join(
            f"{m:.1f} ± {s:.1f}" for m, s in zip(a.mean(axis=0), a.std(axis=0, ddof=1), strict=True)
        )
        times = " | ".join(f"{w:.2f} / {c:.2f}" for w, c in found["seconds"].values())
        print(f"| {method} | {accuracy} | {times} | {found['peak']:,.0f} |", flush=True)


def main() -> None:
    from benchmarks.peers.methods import METHODS, package

    parser = parser_with_data(__doc__)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--points", type=int, help="the first ones of each set; else all")
    parser.add_argument("--minutes", type=float, default=20, help="for a method on a set, at most")
    parser.add_argument("--only", nargs="*", metavar="METHOD", help="names as in the table")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        own = measure(arguments.child, arguments.file, arguments.draws, arguments.points)
        print(json.dumps(own))
        return
    methods = arguments.only or list(METHODS)
    found = [f"{name} {version(name)}" for name in sorted({package(m) for m in methods})]
    print(f"{', '.join(found)}; {arguments.draws} draws; seconds: wall / CPU")
    for path in list_sets(arguments.data):
        table(path, methods, arguments)


if __name__ == "__main__":
    main()
