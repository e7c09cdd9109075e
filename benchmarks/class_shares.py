"""Accuracy of the default where classes are unequal, by what is known of their sizes.

    python benchmarks/class_shares.py [--set NAME] [--draws 5]

Of each set so many points are kept that the largest class has ten times as many as the smallest, in
equal steps of their logarithms and in random order, at least 12 each, about 2,000 in all at most.
Labels are 1 or 5 per class, so that they do not tell the sizes. Besides accuracy over the
unlabelled points, by how much the shares that were used miss the true ones: half the sum of the
differences.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from benchmarks._sets import draw, parser_with_data
from benchmarks.label_quality import SETS
from dlp_plugins.embeddings.defaults import propagation_recipe
from dlp_plugins.recipe.build import build_propagator

LEAST, MOST, RATIO = 12, 2000, 10


def unequal(y: np.ndarray, seed: int) -> np.ndarray:
    """Indices of the points that are kept."""
    rng = np.random.default_rng(1000 + seed)
    order = rng.permutation(y.max() + 1)
    kept = []
    for rank, j in enumerate(order):
        own = rng.permutation(np.flatnonzero(y == j))
        share = RATIO ** (-rank / (len(order) - 1))
        kept.append(own[: max(LEAST, int(len(own) * share))])
    part = min(1.0, MOST / sum(map(len, kept)))
    return np.sort(np.concatenate([own[: max(LEAST, int(part * len(own)))] for own in kept]))


def compare(path: Path, title: str, draws: int) -> None:
    with np.load(path) as file:
        x, y = file["x"], file["y"].astype(int)
    c = y.max() + 1
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for seed in range(draws):
        kept = unequal(y, seed)
        truth = y[kept]
        default = build_propagator(propagation_recipe([]))
        f = default.apply_transform(torch.from_numpy(x[kept]))
        graph = default.assemble_graph(default.find_neighbors(f))
        for per_class in (1, 5):
            labels = draw(truth, per_class, seed)
            pi = np.bincount(truth[labels < 0], minlength=c) / (labels < 0).sum()
            known = tuple(pi.tolist())
            for name, normalizer, shares in (
                ("equal", "class_mass", "equal"),
                ("estimate", "class_mass", "estimate"),
                ("true", "class_mass", known),
                ("true, sinkhorn", "sinkhorn", known),
            ):
                made = build_propagator(propagation_recipe([f"normalizer={normalizer}"]))
                made = replace(made, class_shares=shares)
                out = made.spread(graph, torch.from_numpy(labels), c, descriptors=f)
                right = 100 * float((out.labels.numpy() == truth)[labels < 0].mean())
                assert out.class_shares is not None
                missed = 50 * float(np.abs(out.class_shares.numpy() - pi).sum())
                found.setdefault((name, per_class), []).append((right, missed))
    print(f"\n**{title}**, {draws} draws\n")
    print("| class shares | accuracy, 1 label | 5 labels | shares miss by, 1 label | 5 labels |")
    print("| --- | --- | --- | --- | --- |")
    for name in dict.fromkeys(name for name, _ in found):
        one, five = (np.mean(found[name, m], axis=0) for m in (1, 5))
        print(f"| {name} | {one[0]:.1f} | {five[0]:.1f} | {one[1]:.0f} % | {five[1]:.0f} % |")


def main() -> None:
    parser = parser_with_data(__doc__)
    parser.add_argument("--set", choices=SETS, help="one set; by default all three")
    parser.add_argument("--draws", type=int, default=5)
    options = parser.parse_args()
    for name, (title, _) in SETS.items():
        if options.set in (None, name):
            compare(options.data / f"{name}.npz", title, options.draws)


if __name__ == "__main__":
    main()
