"""`dlp propagate` on ten million points x 64 in 14 GiB: the whole command, through files.

    python benchmarks/ten_million.py --points 1M 10M --folder FOLDER [--memory 14G] [--kill-twice]

Makes the set (float16, 100 classes, 10 labels each), runs the command in a control group of so much
memory where this user may make one (version 1 or 2), and prints the seconds of each stage, the peak
of its own memory, the recall of 300 points against all others, and the agreement with the truth.
With several sizes also the cost per point beside the first. `--kill-twice` runs it a second time,
killed in the search and in the solve and resumed, and compares the tables. Files stay in FOLDER
until the next size; 10 million need 15 GB there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks import reference
from dlp_plugins.units import parse_bytes, parse_count

CLASSES, DIM, K, PER_CLASS, QUERIES = 100, 64, 30, 10, 300
GROUPS = Path("/sys/fs/cgroup")
POLL_SECONDS = 0.2
KILLED_AFTER = ("cells", "scores-")  # finished stages: the search and the solve are under way


@dataclass
class Watched:
    """What was seen of one run: its largest anonymous memory, and links to the lists it found."""

    links: Path
    peak: int = 0
    linked: bool = False
    report: dict[str, Any] = field(default_factory=dict)
    wall: float = 0.0
    cpu: float = 0.0


def make_set(folder: Path, points: int) -> None:
    """x.npy, y.npy, truth.npy."""
    x = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float16, (points, DIM))
    truth, done = np.empty(points, np.int64), 0
    for v, labels in reference.mixture_in_blocks(points, CLASSES, DIM):
        x[done : done + len(v)], truth[done : done + len(v)] = v, labels
        done += len(v)
    x.flush()
    np.save(folder / "truth.npy", truth)
    np.save(folder / "y.npy", reference.some_labels(truth, PER_CLASS))


@contextlib.contextmanager
def memory_group(size: float) -> Iterator[Path | None]:
    """A control group of so many bytes; None where it cannot be made, which is printed."""
    old = (GROUPS / "memory").is_dir()
    group = GROUPS / ("memory" if old else "") / f"dlp-ten-million-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if old else "memory.max")).write_text(str(int(size)))
    except OSError as error:
        print(f"no control group, so no limit of memory: {error}", flush=True)
        with contextlib.suppress(OSError):
            group.rmdir()
        yield None
        return
    try:
        yield group
    finally:
        for _ in range(100):  # until its last process is gone
            with contextlib.suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.1)


def command(folder: Path, out: str, options: argparse.Namespace) -> list[str]:
    settings = [
        "transform=none", "refiner=none", "graph=cells", f"graph.k={K}",
        f"graph.probes={options.probes}",
    ]  # fmt: skip
    return [
        sys.executable, "-m", "dlp_cli", "propagate", str(folder / "x.npy"), "--labels",
        str(folder / "y.npy"), "--out", str(folder / out), "--device", "cpu", "--json",
        *([] if options.in_memory else ["--on-disk"]),
        *(word for setting in settings for word in ("--set", setting)),
    ]  # fmt: skip


def run(words: list[str], work: Path, group: Path | None, seen: Watched, kill: str = "") -> bool:
    """Run the command; whether it ended. With `kill` it is killed once such a stage is finished."""

    def enter() -> None:
        if group is not None:
            (group / "cgroup.procs").write_text(str(os.getpid()))

    begin = time.perf_counter()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, preexec_fn=enter, text=True
    )
    stop = threading.Event()
    watching = threading.Thread(target=watch, args=(process, work, seen, stop, kill))
    watching.start()
    try:
        out, _ = process.communicate()
    finally:
        process.kill()
        stop.set()
        watching.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seen.wall += time.perf_counter() - begin
    seen.cpu += after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    if process.returncode == -signal.SIGKILL and kill:
        return False
    if process.returncode:
        raise SystemExit(f"{' '.join(words)}\nended with {process.returncode}")
    seen.report = json.loads(out)
    return True


def watch(
    process: subprocess.Popen[str], work: Path, seen: Watched, stop: threading.Event, kill: str
) -> None:
    doomed = 0.0
    while not stop.wait(POLL_SECONDS):
        with contextlib.suppress(OSError, StopIteration):
            status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            anonymous = next(line for line in status if line.startswith("RssAnon"))
            seen.peak = max(seen.peak, 1024 * int(anonymous.split()[1]))
        lists = work / "lists"
        if not seen.linked and lists.is_dir():
            seen.links.mkdir(exist_ok=True)
            for file in (lists / "indices", lists / "similarities", work / "cells" / "order"):
                os.link(file, seen.links / file.name)
            seen.linked = True
        if kill and not doomed and any(p.suffix != ".tmp" for p in work.glob(f"{kill}*")):
            doomed = time.monotonic() + 2  # into the next stage
        if doomed and time.monotonic() > doomed:
            process.kill()
            return


def recall(folder: Path, links: Path) -> float:
    """Of lists of random points, against a search among all."""
    x = np.load(folder / "x.npy", mmap_mode="r")
    order = np.fromfile(links / "order", np.int32)
    lists = np.memmap(links / "similarities", np.float32, "r").reshape(len(order), -1)
    rows = np.random.default_rng(1).choice(len(order), QUERIES, replace=False)
    queries = unit(x[order[rows]])
    best = np.full((QUERIES, K), -np.inf, np.float32)
    for start in range(0, len(x), 100_000):
        s = queries @ unit(x[start : start + 100_000]).T
        own = order[rows] - start
        inside = (own >= 0) & (own < s.shape[1])
        s[np.flatnonzero(inside), own[inside]] = -np.inf
        both = np.concatenate([best, np.partition(s, -K, axis=1)[:, -K:]], axis=1)
        best = np.partition(both, -K, axis=1)[:, -K:]
    least = best.min(axis=1, keepdims=True)
    return float((lists[rows] >= least - 1e-6).mean())


def unit(x: np.ndarray) -> np.ndarray:
    v = np.asarray(x, np.float32)
    return v / np.linalg.norm(v, axis=1, keepdims=True)


def agreement(folder: Path, out: str) -> float:
    """Of the labels found for unlabelled points with the truth."""
    import pyarrow.parquet as pq

    found = pq.read_table(folder / out, columns=["label"]).column(0).to_numpy()
    unlabeled = np.load(folder / "y.npy") < 0
    return float((found == np.load(folder / "truth.npy"))[unlabeled].mean())


def measured(folder: Path, points: int, options: argparse.Namespace) -> Watched:
    """One size: the figures are printed as they are known."""
    make_set(folder, points)
    print(
        f"{points:,} x {DIM}, k = {K}, {CLASSES} classes; load {os.getloadavg()[0]:.1f}", flush=True
    )
    seen = Watched(folder / "links")
    with memory_group(options.memory) as group:
        run(command(folder, "t.parquet", options), folder / "t.parquet.work", group, seen)
        stages = ", ".join(f"{name} {s:.1f}" for name, s in seen.report["seconds"].items())
        print(
            f"  {seen.wall:.1f} wall s, {seen.cpu:.1f} CPU s; own memory at its peak "
            f"{seen.peak / 2**30:.1f} GiB; load {os.getloadavg()[0]:.1f}\n  wall s: {stages}",
            flush=True,
        )
        print(
            f"  agreement with the truth {100 * agreement(folder, 't.parquet'):.2f} %", flush=True
        )
        if seen.linked:
            print(f"  recall of {QUERIES} points {recall(folder, seen.links):.3f}", flush=True)
        if options.kill_twice:
            killed_twice(folder, group, options)
    return seen


def killed_twice(folder: Path, group: Path | None, options: argparse.Namespace) -> None:
    words, seen = command(folder, "k.parquet", options), Watched(folder / "links", linked=True)
    work = folder / "k.parquet.work"
    ended = [
        run(words + ["--resume"] * i, work, group, seen, stage)
        for i, stage in enumerate(KILLED_AFTER)
    ]
    ended.append(run([*words, "--resume"], work, group, seen))
    same = (folder / "k.parquet").read_bytes() == (folder / "t.parquet").read_bytes()
    kills = ended.count(False)
    print(
        f"  killed {kills} times and resumed: {seen.wall:.1f} wall s in all, the table is "
        f"{'the same' if same else 'ANOTHER'}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--points", type=parse_count, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--memory", type=memory, default=memory("14G"), help="of the control group")
    parser.add_argument("--folder", type=Path, required=True, help="for the set and the table")
    parser.add_argument("--probes", type=int, default=32, help="cells searched for each point")
    parser.add_argument("--kill-twice", action="store_true")
    parser.add_argument("--in-memory", action="store_true", help="files only where it must be")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # removes its files, too
    first: Watched | None = None
    for points in options.points:
        folder = options.folder / str(points)
        folder.mkdir(parents=True)
        try:
            seen = measured(folder, points, options)
        finally:
            shutil.rmtree(folder)
        if first is not None:
            least = options.points[0]
            wall, cpu = (x / points * least for x in (seen.wall / first.wall, seen.cpu / first.cpu))
            print(
                f"  cost per point beside {least:,}: {wall:.2f} times the wall s, {cpu:.2f} times "
                "the CPU s"
            )
        first = first or seen


def memory(text: str) -> float:
    """Bytes; as control groups do, 14G counts in GiB."""
    return parse_bytes(text.replace("G", "GiB") if text.endswith("G") else text)


if __name__ == "__main__":
    main()
