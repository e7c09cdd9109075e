"""Images per second of a training by one process and by two, with one thread each.

    python benchmarks/processes_speed.py
    python benchmarks/processes_speed.py --processes 4 --recipe supervised_cifar10 --set ...

Starts each in turn, `--repeat` times, and prints the best of each: other work on the machine can
only slow a run down. Takes four minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from dlp_plugins.environment import describe_environment, torch

# A network large enough that a step is work, and stage two alone.
SETTINGS = [
    "backbone.width=96", "training.stage_one_epochs=1", "training.stage_two_epochs=6",
    "training.precision=float32", "training.evaluate_every=6", "pseudo_labels.refresh_epochs=6",
]  # fmt: skip


def images_per_second(recipe: str, settings: list[str], processes: int) -> float:
    words = [w for setting in settings for w in ("--set", setting)]
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        subprocess.run(
            [sys.executable, *launch, "-m", "dlp_cli", "run", recipe, *words, "--out", str(out)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return json.loads((out / "summary.json").read_text())["images_per_second"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="digits")
    parser.add_argument("--set", action="append", dest="settings")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    settings = SETTINGS if given.settings is None else given.settings
    best = {1: 0.0, given.processes: 0.0}
    for _ in range(given.repeat):
        for processes in best:
            speed = images_per_second(given.recipe, settings, processes)
            load = os.getloadavg()[0]
            print(f"{processes} process(es): {speed:,.0f} images/s (load {load:.1f})", flush=True)
            best[processes] = max(best[processes], speed)
    ratio = best[given.processes] / best[1]
    print(f"best: {best[1]:,.0f} and {best[given.processes]:,.0f} images/s, {ratio:.2f} times")
    print(describe_environment(torch.device("cpu")))


if __name__ == "__main__":
    main()
