"""Accuracy of the default labels on three sets of embeddings: `make bench-labels`.

Ten draws of m labels per class (seeds 0 to 9), accuracy over the unlabelled points, as Markdown.
Labels per class are chosen alike for every method, class sizes are unknown to all of them:

- the paper's training defaults: k = 50, alpha = 0.99, rows of scores over their sums;
- logistic regression (scikit-learn, C = 10) on unit rows;
- LabelSpreading (scikit-learn, k nearest neighbours) on unit rows: of k = 5, 10, 20, 50 and alpha =
  0.5, 0.9, 0.99 the best in each column, chosen with the truth, which favours it;
- the default of `dlp propagate`, with and without its last step.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from benchmarks._sets import draw, parser_with_data
from dlp_plugins.embeddings.defaults import propagation_recipe
from dlp_plugins.inputs import unit_rows
from dlp_plugins.propagation import Propagator
from dlp_plugins.recipe.build import build_propagator

PER_CLASS = (1, 2, 5, 10)
DRAWS = 10
ENOUGH = 0.5  # points of accuracy below the aim
SETS = {
    "oxford_pets_clip": ("pets", (72.7, 79.8, 88.1, 89.8)),
    "whurs19_clip": ("aerial scenes", (94.1, 97.4, 98.0, 98.4)),
    "cifar10_test_lite0": ("CIFAR-10, ImageNet features", (64.6, 74.3, 80.5, 81.0)),
}
Method = Callable[[np.ndarray], np.ndarray]
"""Labels [n] (-1 where there is none) to labels of all points."""


def accuracies(method: Method, y: np.ndarray) -> np.ndarray:
    """[DRAWS, len(PER_CLASS)] in percent, over the unlabelled points."""
    found = np.empty((DRAWS, len(PER_CLASS)))
    for (seed, _), (column, per_class) in itertools.product(
        enumerate(range(DRAWS)), enumerate(PER_CLASS)
    ):
        labels = draw(y, per_class, seed)
        unlabeled = labels < 0
        found[seed, column] = 100 * (method(labels) == y)[unlabeled].mean()
    return found


def by_propagation(propagator: Propagator, x: np.ndarray, classes: int) -> Method:
    """The graph is built once, as it does not depend on labels."""
    f = propagator.apply_transform(torch.from_numpy(x))
    graph = propagator.assemble_graph(propagator.find_neighbors(f))

    def label(labels: np.ndarray) -> np.ndarray:
        found = propagator.spread(graph, torch.from_numpy(labels), classes, descriptors=f)
        return found.labels.numpy()

    return label


def by_logistic_regression(unit: np.ndarray) -> Method:
    from sklearn.linear_model import LogisticRegression

    def label(labels: np.ndarray) -> np.ndarray:
        known = labels >= 0
        return LogisticRegression(C=10, max_iter=1000).fit(unit[known], labels[known]).predict(unit)

    return label


def by_label_spreading(unit: np.ndarray, k: int, alpha: float) -> Method:
    """scikit-learn's, its graph of k neighbours built once and handed over."""
    from sklearn.neighbors import NearestNeighbors
    from sklearn.semi_supervised import LabelSpreading

    # as LabelSpreading(kernel="knn") makes it, each point among its own neighbours
    graph = NearestNeighbors(n_neighbors=k).fit(unit).kneighbors_graph(unit, mode="connectivity")

    def label(labels: np.ndarray) -> np.ndarray:
        model = LabelSpreading(kernel=lambda a, b=None: graph, alpha=alpha, max_iter=100)
        return model.fit(unit, labels).transduction_

    return label


def best_label_spreading(unit: np.ndarray, y: np.ndarray) -> np.ndarray:
    grid = itertools.product((5, 10, 20, 50), (0.5, 0.9, 0.99))
    tried = [accuracies(by_label_spreading(unit, k, alpha), y) for k, alpha in grid]
    best = np.argmax([t.mean(axis=0) for t in tried], axis=0)
    return np.stack([tried[t][:, column] for column, t in enumerate(best)], axis=1)


def row(name: str, figures: Iterable[str]) -> str:
    return f"| {name} | {' | '.join(figures)} |"


def compare(path: Path, title: str, aim: tuple[float, ...], peers: bool) -> bool:
    """Print the table of one set; whether the default is within half a point of the aim."""
    with np.load(path) as file:
        x, y = file["x"], file["y"]
    classes = len(np.unique(y))
    unit = unit_rows(torch.from_numpy(x)).numpy()
    print(f"\n**{title}**: {len(x):,} x {x.shape[1]:,}, {classes} classes\n")
    print(row("labels per class", map(str, PER_CLASS)))
    print(row("---", ("---",) * len(PER_CLASS)), flush=True)

    def show(name: str, found: np.ndarray) -> np.ndarray:
        pairs = zip(found.mean(axis=0), found.std(axis=0, ddof=1), strict=True)
        print(row(name, [f"{mean:.1f} ± {deviation:.1f}" for mean, deviation in pairs]), flush=True)
        return found.mean(axis=0)

    show("the paper's defaults", accuracies(by_propagation(Propagator.default(), x, classes), y))
    if peers:
        show("logistic regression", accuracies(by_logistic_regression(unit), y))
        show("LabelSpreading, the best", best_label_spreading(unit, y))
    without = build_propagator(propagation_recipe(["refiner=none"]))
    show("default without the discriminant", accuracies(by_propagation(without, x, classes), y))
    default = build_propagator(propagation_recipe([]))
    mean = show("**default**", accuracies(by_propagation(default, x, classes), y))
    print(row("aim", [f"{a:.1f}" for a in aim]))
    return bool((mean >= np.array(aim) - ENOUGH).all())


def main() -> None:
    parser = parser_with_data(__doc__)
    parser.add_argument("--no-peers", action="store_true", help="leave scikit-learn's methods out")
    arguments = parser.parse_args()
    reached = [
        compare(arguments.data / f"{name}.npz", title, aim, not arguments.no_peers)
        for name, (title, aim) in SETS.items()
    ]
    if not all(reached):
        sys.exit(f"A figure of the default is over {ENOUGH} points below its aim.")


if __name__ == "__main__":
    main()
