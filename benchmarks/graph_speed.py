"""Graph builders against the usual search and graph: `python benchmarks/graph_speed.py`.

Prints for each builder the seconds of its search, how many times faster than FAISS flat that is,
and its recall; then the same for assembling the graph. All run in one process and in turns, and
medians count, so that other load on the machine does not make ours look better.

    python benchmarks/graph_speed.py --data FOLDER    # real descriptors: see real_descriptors.py
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks import reference
from benchmarks._sets import read_descriptors
from benchmarks.timing import in_turns, timed
from dlp_plugins import registry
from dlp_plugins.graph import Neighbors, assemble
from dlp_plugins.graphs.contract import drop_self, recall


def compare(v: np.ndarray, k: int, names: list[str], repeat: int) -> None:
    """Print one line per builder for descriptors v [n, d]."""
    runs: dict[str, Callable[[], Any]] = {"FAISS flat": lambda: reference.search(v, k)}
    for name in names:
        builder = registry.graphs.build(name, k=k)
        if name == "nn_descent":  # its first call compiles
            builder.neighbors(torch.from_numpy(v[:2000]))
        runs[name] = lambda b=builder: b.neighbors(torch.from_numpy(v))
    found = in_turns(runs, repeat)
    flat = found.pop("FAISS flat")
    exact = drop_self(*(torch.from_numpy(f) for f in flat.result))
    line = "  {:<11}{:8.2f} wall s{:8.2f} CPU s{:7.1f}x wall{:7.1f}x CPU   recall {:.3f}"
    print(line.format("FAISS flat", flat.wall, flat.cpu, 1, 1, 1))
    for name, run in found.items():
        faster = flat.wall / run.wall, flat.cpu / run.cpu
        share = recall(run.result, exact)
        print(line.format(name, run.wall, run.cpu, *faster, share), flush=True)
    compare_graphs(flat.result, exact, repeat)


def compare_graphs(found: tuple[np.ndarray, np.ndarray], neighbors: Neighbors, repeat: int) -> None:
    """Print the seconds of SciPy's graph and of ours, affinity included."""
    affinity = registry.affinities.build("inner_product")
    usual = timed(lambda: reference.build_graph(*found), repeat)
    ours = timed(lambda: assemble(neighbors.indices, affinity.weights(neighbors)), repeat)
    difference = abs(usual.result - ours.result.to_scipy()).max()
    print(
        f"  graph: SciPy {usual.wall:.2f} wall s, ours {ours.wall:.2f} wall s, "
        f"{usual.wall / ours.wall:.1f}x; largest difference of an entry {difference:.1e}"
    )


def made_sets(points: int) -> Iterator[tuple[str, np.ndarray]]:
    for title, options in [
        ("10 classes near 16 dimensions", {"classes": 10}),
        ("100 classes near 16 dimensions", {"classes": 100}),
        (
            "100 classes without structure inside",
            {"classes": 100, "intrinsic": 128, "spread": 2.0},
        ),
    ]:
        yield title, reference.mixture(points, **options)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--points", type=int, default=50_000)
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--builders", nargs="*", default=["exact", "cells"])
    parser.add_argument("--data", type=Path, help="folder of real descriptors")
    arguments = parser.parse_args()
    print(f"k = {arguments.k}, {torch.get_num_threads()} threads")
    sets = made_sets(arguments.points)
    if arguments.data:
        sets = ((name, x[: arguments.points]) for name, x, _ in read_descriptors(arguments.data))
    for title, v in sets:
        print(f"{title}: {len(v):,} x {v.shape[1]}")
        compare(v, arguments.k, arguments.builders, arguments.repeat)


if __name__ == "__main__":
    main()
