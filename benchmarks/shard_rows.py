"""Memory of each process where several share the rows of one graph, beside one that holds it all.

    python benchmarks/shard_rows.py --points 400k --processes 1 2 --folder FOLDER

Makes the set of the other benchmarks (float16, 64 numbers, 100 classes, 10 labels each), runs
`dlp propagate` with the whole graph in one process and then `--shard-rows` by each number of
processes, with one thread each, and prints the seconds, the peak of each process's own memory, the
halo, and the labels that agree with the first run's. As cells are approximate, the whole graph with
other cells shows how many may differ.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import psutil

from benchmarks.ten_million import CLASSES, DIM, K, make_set
from dlp_plugins.units import format_bytes, parse_count

POLL_SECONDS = 0.1
SETTINGS = [
    "transform=none", "refiner=none", "graph=cells", "solver=chebyshev", f"graph.k={K}",
]  # fmt: skip


@dataclass
class Run:
    """wall: seconds. peaks: bytes of own memory of each process. report: what `--json` prints."""

    wall: float
    peaks: dict[int, int]
    report: dict[str, Any]
    labels: np.ndarray

    def describe(self, whole: Run | None) -> str:
        peaks = ", ".join(format_bytes(peak) for peak in self.peaks.values())
        seconds = ", ".join(f"{name} {s:.1f}" for name, s in self.report["seconds"].items())
        text = f"{self.wall:.1f} wall s; own memory {peaks}\n  wall s: {seconds}"
        halo = self.report["graph"]["halo"]
        if halo is not None:
            text += f"\n  rows of other processes: {halo:,} at most"
        if whole is not None:
            text += f"\n  {100 * (self.labels == whole.labels).mean():.3f} % of labels are the same"
        return f"{text}; load {os.getloadavg()[0]:.1f}"


def run(folder: Path, processes: int, seed: int = 0) -> Run:
    """By so many processes that share the rows; 0 for one that holds the whole graph.

    seed: of the cells.
    """
    import pyarrow.parquet as pq

    out = folder / "t.parquet"
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", str(max(1, processes))]
    words = [
        sys.executable, *launch, "-m", "dlp_cli", "propagate", str(folder / "x.npy"), "--labels",
        str(folder / "y.npy"), "--out", str(out), "--device", "cpu", "--json", "--overwrite",
        "--no-calibrate", *(word for setting in SETTINGS for word in ("--set", setting)),
        "--set", f"graph.seed={seed}",
        *["--shard-rows"] * bool(processes),
    ]  # fmt: skip
    peaks: dict[int, int] = {}
    begin = time.perf_counter()
    with tempfile.TemporaryFile("w+") as printed:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        launcher = subprocess.Popen(
            words, env=environment, stdout=printed, stderr=subprocess.DEVNULL
        )
        while launcher.poll() is None:
            for process in psutil.Process(launcher.pid).children():
                with contextlib.suppress(psutil.Error, OSError, StopIteration):
                    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
                    own = next(line for line in lines if line.startswith("RssAnon"))
                    rank = int(process.environ().get("RANK", 0))
                    peaks[rank] = max(peaks.get(rank, 0), 1024 * int(own.split()[1]))
            time.sleep(POLL_SECONDS)
        wall = time.perf_counter() - begin
        if launcher.returncode:
            raise SystemExit(f"{' '.join(words)}\nended with {launcher.returncode}")
        printed.seek(0)
        report = json.load(printed)
    labels = pq.read_table(out, columns=["label"]).column(0).to_numpy()
    return Run(wall, dict(sorted(peaks.items())), report, labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--points", type=parse_count, default=400_000)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--folder", type=Path, help="for the set; by default a temporary one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        make_set(folder, given.points)
        print(f"{given.points:,} x {DIM}, k = {K}, {CLASSES} classes", flush=True)
        whole = run(folder, 0)
        print(f"the whole graph in one process: {whole.describe(None)}", flush=True)
        other = run(folder, 0, seed=1)
        print(f"the same with other cells: {other.describe(whole)}", flush=True)
        for count in given.processes:
            print(f"shared by {count}: {run(folder, count).describe(whole)}", flush=True)


if __name__ == "__main__":
    main()
