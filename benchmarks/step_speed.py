"""The whole propagation step, against the usual procedure and against scikit-learn.

    python benchmarks/step_speed.py [--points 50000] [--no-million]
    python benchmarks/step_speed.py --data FOLDER    # real descriptors: see real_descriptors.py

Search, graph, solve and pseudo-labels, in one process. All run in turns, and medians count. CPU
seconds are what other load on the machine disturbs least. At the end, of made sets, a million
points x 128, k = 30, 100 classes, beside 100,000, for the cost per point.
"""

from __future__ import annotations

import argparse
import resource
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from sklearn.semi_supervised import LabelSpreading

from benchmarks import reference
from benchmarks._sets import read_descriptors
from benchmarks.timing import Timing, in_turns, timed
from dlp_plugins import registry
from dlp_plugins.propagation import Propagator
from dlp_plugins.sklearn import GraphLabelPropagation


def ours(v: np.ndarray, labels: np.ndarray, classes: int, graph: str, k: int) -> np.ndarray:
    """Pseudo-labels by the named graph builder and otherwise the paper's components."""
    propagator = replace(Propagator.default(), graph=registry.graphs.build(graph, k=k))
    return propagator(torch.from_numpy(v), torch.from_numpy(labels), classes).labels.numpy()


def compare(name: str, mine: Timing, other: Timing) -> str:
    return (
        f"{name} {mine.wall:.1f} wall s, {other.wall / mine.wall:.1f} times faster; "
        f"{mine.cpu:.1f} CPU s, {other.cpu / mine.cpu:.1f} times"
    )


def against_the_usual(name: str, v: np.ndarray, truth: np.ndarray, turns: int, k: int = 50) -> None:
    classes = int(truth.max()) + 1
    labels = reference.some_labels(truth, 10)
    runs: dict[str, Callable[[], Any]] = {
        g: partial(ours, v, labels, classes, g, k) for g in ("exact", "cells")
    }
    runs["usual"] = lambda: reference.propagate(v, labels, classes, k).labels
    found = in_turns(runs, turns)
    usual = found.pop("usual")
    print(
        f"{name}{len(v):,} x {v.shape[1]}, k = {k}, {classes} classes: usual procedure "
        f"{usual.wall:.1f} wall s, {usual.cpu:.1f} CPU s, accuracy {accuracy(usual.result, truth)}"
    )
    for g, mine in found.items():
        agree = 100 * np.mean(mine.result == usual.result)
        print(
            f"  {compare(g, mine, usual)}; agrees on {agree:.2f} %, "
            f"accuracy {accuracy(mine.result, truth)}",
            flush=True,
        )


def finer(v: np.ndarray, truth: np.ndarray, parts: int = 10) -> np.ndarray:
    """[n] classes, each of the given ones cut into parts by k-means."""
    import faiss

    cut = np.empty_like(truth)
    for c in np.unique(truth):
        own = v[truth == c]
        kmeans = faiss.Kmeans(v.shape[1], parts, seed=1)
        kmeans.train(own)
        cut[truth == c] = c * parts + kmeans.index.search(own, 1)[1][:, 0]
    return cut


def against_scikit_learn(points: int, classes: int = 10, k: int = 50) -> None:
    """Twenty iterations each: products with the graph are what both spend most on."""
    v, truth = reference.mixture(points, classes)
    labels = reference.some_labels(truth, 10)

    def fit(estimator: Any) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # 20 iterations are meant to be too few
            return estimator.fit(v, labels).transduction_

    estimator = GraphLabelPropagation(
        graph="exact", normalizer="clamp", transformation="none", refiner="none", n_neighbors=k,
        alpha=0.99, max_iter=20,
    )  # fmt: skip
    mine = timed(partial(fit, estimator))
    other = LabelSpreading(kernel="knn", n_neighbors=k, max_iter=20, n_jobs=-1)
    theirs = timed(partial(fit, other))
    mine = mine.better(timed(partial(fit, estimator)))
    print(
        f"{points:,} x 128, k = {k}: LabelSpreading {theirs.wall:.1f} wall s, "
        f"{theirs.cpu:.1f} CPU s, accuracy {accuracy(theirs.result, truth)}"
    )
    print(f"  {compare('ours', mine, theirs)}; accuracy {accuracy(mine.result, truth)}")


def accuracy(labels: np.ndarray, truth: np.ndarray) -> str:
    return f"{100 * np.mean(labels == truth):.2f} %"


def cost_per_point(points: int, classes: int = 100, k: int = 30) -> Timing:
    """Seconds per point, the better of two runs."""
    v, truth = reference.mixture(points, classes)
    labels = reference.some_labels(truth, 10)
    best = timed(partial(ours, v, labels, classes, "cells", k), repeat=2)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{points:,} x 128, k = {k}, {classes} classes, cells: {best.wall:.1f} wall s, per point "
        f"{1e6 * best.wall / points:.0f} wall us, {1e6 * best.cpu / points:.0f} CPU us; "
        f"peak {peak:.1f} GiB, accuracy {accuracy(best.result, truth)}"
    )
    return Timing(best.result, best.wall / points, best.cpu / points)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--points", type=int, default=50_000)
    parser.add_argument("--no-million", action="store_true", help="leave the million points out")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--data", type=Path, help="folder of real descriptors")
    options = parser.parse_args()
    if options.data:
        for name, x, y in read_descriptors(options.data):
            v, truth = x[: options.points], y[: options.points]
            against_the_usual(f"{name}, ", v, truth, options.turns)
            against_the_usual(f"{name}, ", v, finer(v, truth), options.turns)
        return
    for classes in (10, 100):
        against_the_usual("", *reference.mixture(options.points, classes), options.turns)
    for points in (20_000, 50_000):
        against_scikit_learn(points)
    if not options.no_million:
        small, large = cost_per_point(100_000), cost_per_point(1_000_000)
        print(
            f"  ten times the points cost {large.wall / small.wall:.2f} times the wall s per "
            f"point, {large.cpu / small.cpu:.2f} times the CPU s"
        )


if __name__ == "__main__":
    main()
