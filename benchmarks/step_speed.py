"""The whole propagation step, against the usual procedure and against scikit-learn.

    python benchmarks/step_speed.py [--points 50000] [--no-million]

Search, graph, solve and pseudo-labels, in one process. Ours runs before and after the other, and
the better of its two times counts. CPU seconds are what other load on the machine disturbs least.
At the end a million points x 128, k = 30, 100 classes, beside 100,000, for the cost per point.
"""

from __future__ import annotations

import argparse
import resource
import sys
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from sklearn.semi_supervised import LabelSpreading

from benchmarks import reference
from benchmarks.timing import Timing, timed
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


def against_the_usual(points: int, classes: int, k: int = 50) -> None:
    v, truth = reference.mixture(points, classes)
    labels = reference.some_labels(truth, 10)
    graphs = ("exact", "cells")
    first = {g: timed(partial(ours, v, labels, classes, g, k)) for g in graphs}
    usual = timed(partial(reference.propagate, v, labels, classes, k))
    print(
        f"{points:,} x 128, k = {k}, {classes} classes: usual procedure {usual.wall:.1f} wall s, "
        f"{usual.cpu:.1f} CPU s, accuracy {accuracy(usual.result.labels, truth)}"
    )
    for g in graphs:
        mine = first[g].better(timed(partial(ours, v, labels, classes, g, k)))
        agree = 100 * np.mean(mine.result == usual.result.labels)
        print(
            f"  {compare(g, mine, usual)}; agrees on {agree:.2f} %, "
            f"accuracy {accuracy(mine.result, truth)}"
        )


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
    options = parser.parse_args()
    for classes in (10, 100):
        against_the_usual(options.points, classes)
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
