"""Graph builders against the usual search and graph: `python benchmarks/graph_speed.py`.

Prints for each builder the seconds of its search, how many times faster than FAISS flat that is,
and its recall; then the same for assembling the graph. All runs in one process; the reference runs
before and after the others and its best time counts, so that other load on the machine does not
make ours look better.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks import reference
from benchmarks.timing import Timing, timed
from dlp_plugins import registry
from dlp_plugins.graph import Neighbors, assemble
from dlp_plugins.graphs.contract import drop_self, recall


def compare(v: np.ndarray, k: int, names: list[str], repeat: int) -> None:
    """Print one line per builder for descriptors v [n, d]."""
    flat = timed(lambda: reference.search(v, k))
    exact = drop_self(*(torch.from_numpy(f) for f in flat.result))
    runs: dict[str, Timing] = {}
    for name in names:
        builder = registry.graphs.build(name, k=k)
        if name == "nn_descent":  # its first call compiles
            builder.neighbors(torch.from_numpy(v[:2000]))
        runs[name] = timed(lambda b=builder: b.neighbors(torch.from_numpy(v)), repeat)
    flat = flat.better(timed(lambda: reference.search(v, k)))
    line = "  {:<11}{:8.2f} wall s{:8.2f} CPU s{:7.1f}x wall{:7.1f}x CPU   recall {:.3f}"
    print(line.format("FAISS flat", flat.wall, flat.cpu, 1, 1, 1))
    for name, run in runs.items():
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--points", type=int, default=50_000)
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--builders", nargs="*", default=["exact", "cells"])
    arguments = parser.parse_args()
    print(f"{arguments.points} points x 128, k = {arguments.k}, {torch.get_num_threads()} threads")
    for title, options in [
        ("10 classes near 16 dimensions", {"classes": 10}),
        ("100 classes near 16 dimensions", {"classes": 100}),
        (
            "100 classes without structure inside",
            {"classes": 100, "intrinsic": 128, "spread": 2.0},
        ),
    ]:
        print(title)
        v, _ = reference.mixture(arguments.points, **options)
        compare(v, arguments.k, arguments.builders, arguments.repeat)


if __name__ == "__main__":
    main()
