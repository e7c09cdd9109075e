"""Accuracy by who chose the points that were labelled, on three sets: `make bench-suggest`.

1, 2 and 4 times as many labels in all as classes, chosen all at once from no label, then the
default of `dlp propagate`, which knows the classes that occur among the labels and no others.
Accuracy over the unlabelled points, as Markdown; in brackets the classes that have a label.

Random points are drawn uniformly over all points, not per class. `margin` needs labels: its first
batch is random, and each later one is as large. Mean and standard deviation over seeds for
selectors with a seed; the others depend on nothing but the embeddings.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from torch import Tensor

from benchmarks._sets import parser_with_data
from dlp_plugins.embeddings.defaults import propagation_recipe
from dlp_plugins.graph import Graph
from dlp_plugins.propagation import Propagator
from dlp_plugins.recipe.build import build_propagator
from dlp_plugins.registry import SELECTOR, selectors
from dlp_plugins.selectors.contract import Pool

NAMES = ("random", "margin", "typiclust", "v_opt", "coverage")
TIMES = (1, 2, 4)  # labels in all, in classes
SEEDS = {"random": 10, "typiclust": 5, "margin": 5}
# Points of accuracy above random ones: at 1 and 2 times as many labels as classes
SETS = {
    "oxford_pets_clip": ("pets", {1: 10, 2: 10}),
    "whurs19_clip": ("aerial scenes", {1: 10, 2: 12}),
    "cifar10_test_lite0": ("CIFAR-10, ImageNet features", {2: 4}),
}


@dataclass(frozen=True)
class Problem:
    """One set with its graph, which no choice of labels changes."""

    propagator: Propagator
    f: Tensor
    graph: Graph
    y: np.ndarray

    @classmethod
    def read(cls, path: Path) -> Problem:
        with np.load(path) as file:
            x, y = torch.from_numpy(file["x"]), file["y"]
        propagator = build_propagator(propagation_recipe([]))
        f = propagator.apply_transform(x)
        graph = propagator.assemble_graph(propagator.find_neighbors(f))
        return cls(propagator, f, graph, y)

    @property
    def num_classes(self) -> int:
        return len(np.unique(self.y))

    def pool(self, points: Sequence[int] = (), probabilities: bool = False) -> Pool:
        """What a selector sees when these points have a label."""
        labels = self._labels(np.array(points, dtype=int))[0]
        p = None
        if probabilities:
            p = self.propagator.spread(
                self.graph, labels, int(labels.max()) + 1, descriptors=self.f
            ).probabilities
        return Pool(self.f, labels, self.graph, p)

    def accuracy(self, points: np.ndarray) -> tuple[float, int]:
        """In percent, and the classes that have a label."""
        labels, classes = self._labels(points)
        found = self.propagator.spread(self.graph, labels, len(classes), descriptors=self.f).labels
        right = classes[found.numpy()] == self.y
        return 100 * float(right[labels.numpy() < 0].mean()), len(classes)

    def _labels(self, points: np.ndarray) -> tuple[Tensor, np.ndarray]:
        classes, own = np.unique(self.y[points], return_inverse=True)
        labels = torch.full((len(self.y),), -1)
        labels[points] = torch.from_numpy(own)
        return labels, classes


def choose(problem: Problem, name: str, count: int, seed: int) -> np.ndarray:
    """`count` points by that selector."""
    own = {"seed": seed} if name in ("random", "typiclust") else {}
    if name != "margin":
        return selectors.build(name, **own).select(problem.pool(), count).numpy()
    batch = problem.num_classes
    points = choose(problem, "random", batch, seed)
    while len(points) < count:
        pool = problem.pool(points.tolist(), probabilities=True)
        points = np.append(points, selectors.build(name).select(pool, batch).numpy())
    return points


def row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def compare(
    path: Path, title: str, aim: dict[int, float], names: Sequence[str], multiples: Sequence[int]
) -> bool:
    """Print the table of one set; whether the default is as far above random points as it must."""
    problem = Problem.read(path)
    n, c = len(problem.y), problem.num_classes
    print(f"\n**{title}**: {n:,} x {problem.f.shape[1]:,}, {c} classes\n")
    print(row(["labels in all", *(f"{t * c}" for t in multiples), "seconds to choose"]))
    print(row(["---"] * (len(multiples) + 2)), flush=True)
    means: dict[str, list[float]] = {}
    for name in names:
        spent = 0.0
        cells, means[name] = [], []
        for times in multiples:
            begin = time.perf_counter()
            chosen = [choose(problem, name, times * c, s) for s in range(SEEDS.get(name, 1))]
            spent = (time.perf_counter() - begin) / len(chosen)
            found = np.array([problem.accuracy(points) for points in chosen])
            mean, classes = found.mean(axis=0)
            deviation = f" ± {found[:, 0].std(ddof=1):.1f}" if len(found) > 1 else ""
            cells.append(f"{mean:.1f}{deviation} ({classes:.1f})".replace(".0)", ")"))
            means[name].append(float(mean))
        shown = f"**`{name}`**" if name == SELECTOR else f"`{name}`"
        print(row([shown, *cells, f"{spent:.1f}"]), flush=True)
    if not {"random", SELECTOR} <= means.keys():
        return True
    above = np.subtract(means[SELECTOR], means["random"])
    print(row(["above random", *(f"{a:+.1f}" for a in above), ""]), flush=True)
    return all(a >= aim.get(t, 0) for a, t in zip(above, multiples, strict=True))


def main() -> None:
    parser = parser_with_data(__doc__)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, help="selectors")
    parser.add_argument(
        "--times", type=int, nargs="+", default=TIMES, help="labels in all, in classes"
    )
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    arguments = parser.parse_args()
    reached = [
        compare(arguments.data / f"{name}.npz", *SETS[name], arguments.only, arguments.times)
        for name in arguments.sets
    ]
    if not all(reached):
        sys.exit(f"{SELECTOR} is less far above random points than it must be.")


if __name__ == "__main__":
    main()
