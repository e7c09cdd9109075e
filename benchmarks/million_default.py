"""The whole default on a million points x 128, 100 classes, `cells`: with and without the refiner.

    python benchmarks/million_default.py [--points 1000000]

Each runs in a process of its own, so that its peak memory is its own. The aim: with B at most twice
the time without it, and under 8 GiB. Peak memory includes Python and torch, and the points.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks import reference
from benchmarks.timing import timed
from dlp_plugins.embeddings.chunked import propagate_chunked
from dlp_plugins.embeddings.defaults import propagation_recipe
from dlp_plugins.embeddings.memory import ClassChunks
from dlp_plugins.recipe.build import build_propagator

DIM, CLASSES, PER_CLASS = 128, 100, 10


def one(points: int, refiner: str) -> None:
    """Print figures of one run as JSON."""
    x, truth = reference.mixture(points, CLASSES, DIM)
    labels = torch.from_numpy(reference.some_labels(truth, PER_CLASS))
    settings = ["graph=cells", f"refiner={refiner}"]
    propagator = build_propagator(propagation_recipe(settings, points))
    held = [torch.from_numpy(x)]
    del x
    chunks = ClassChunks(CLASSES, on_disk=False, peak=0)
    run = timed(
        lambda: propagate_chunked(
            propagator, lambda tick: held.pop(), labels, CLASSES, chunks, scratch=Path.cwd()
        )
    )
    figures = {
        "wall": run.wall,
        "cpu": run.cpu,
        "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "accuracy": 100 * float((run.result.labels.numpy() == truth).mean()),
        "phases": run.result.clock.seconds,
    }
    print(json.dumps(figures))


def measured(points: int, refiner: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--points", str(points), "--refiner", refiner]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    phases = ", ".join(f"{name} {seconds:.1f}" for name, seconds in found["phases"].items())
    print(
        f"refiner={refiner}: {found['wall']:.1f} wall s, {found['cpu']:.1f} CPU s, peak "
        f"{found['gib']:.1f} GiB, accuracy {found['accuracy']:.1f} %\n  wall s: {phases}",
        flush=True,
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--refiner", help="measure this one alone, in this process")
    options = parser.parse_args()
    if options.refiner:
        one(options.points, options.refiner)
        return
    print(f"{options.points:,} x {DIM}, {CLASSES} classes, {torch.get_num_threads()} threads")
    without, whole = (measured(options.points, name) for name in ("none", "discriminant"))
    print(
        f"with B {whole['wall'] / without['wall']:.2f} times the wall s, "
        f"{whole['cpu'] / without['cpu']:.2f} times the CPU s"
    )


if __name__ == "__main__":
    main()
