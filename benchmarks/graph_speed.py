"""Graph builders against the usual search and graph: `python benchmarks/graph_speed.py`.

Prints for each builder the seconds of its search, how many times faster than FAISS flat that is,
and its recall; then the same for assembling the graph. All in one process, the reference before and
after the others, and the best of its times taken: other load on the machine must not flatter us.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks import reference
from benchmarks.timing import timed
from dlp_plugins import registry
from dlp_plugins.graph import Neighbors, assemble
from dlp_plugins.graphs.contract import drop_self, recall

T = TypeVar("T")


def best(function: Callable[[], T], repeat: int) -> tuple[T, float, float]:
    """As `timed`, the least of `repeat` times."""
    runs = [timed(function) for _ in range(repeat)]
    return runs[0][0], min(r[1] for r in runs), min(r[2] for r in runs)


def compare(v: np.ndarray, k: int, names: list[str], repeat: int) -> None:
    """Print a line a builder for descriptors v [n, d]."""
    search = lambda: reference.search(v, k)  # noqa: E731
    found, clock, processor = timed(search)
    flat = drop_self(*(torch.from_numpy(f) for f in found))
    rows = []
    for name in names:
        builder = registry.graphs.build(name, k=k)
        if name == "nn_descent":  # its first call compiles
            builder.neighbors(torch.from_numpy(v[:2000]))
        rows.append((name, *best(lambda b=builder: b.neighbors(torch.from_numpy(v)), repeat)))
    _, *again = timed(search)
    clock, processor = min(clock, again[0]), min(processor, again[1])
    line = "  {:<11}{:8.2f} s{:8.2f} CPU s{:7.1f}x by clock{:7.1f}x by CPU   recall {:.3f}"
    print(line.format("FAISS flat", clock, processor, 1, 1, 1))
    for name, neighbors, seconds, cpu in rows:
        share = recall(neighbors, flat)
        print(line.format(name, seconds, cpu, clock / seconds, processor / cpu, share), flush=True)
    graph(found, flat, repeat)


def graph(found: tuple[np.ndarray, np.ndarray], neighbors: Neighbors, repeat: int) -> None:
    """Print the seconds of SciPy's graph and of ours, affinity included."""
    affinity = registry.affinities.build("inner_product")
    wn, clock, _ = best(lambda: reference.build_graph(*found), repeat)
    ours, seconds, _ = best(
        lambda: assemble(neighbors.indices, affinity.weights(neighbors)), repeat
    )
    difference = abs(wn - ours.to_scipy()).max()
    print(
        f"  graph: SciPy {clock:.2f} s, ours {seconds:.2f} s, {clock / seconds:.1f}x; "
        f"largest difference of an entry {difference:.1e}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
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
