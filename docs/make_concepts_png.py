"""Makes docs/concepts.png, the picture of docs/concepts.md, from a propagation of two crescents.

    python docs/make_concepts_png.py

Points of a plane stand for descriptors. Needs Matplotlib; reads no file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from sklearn.datasets import make_moons

import dlp_plugins

PICTURE = Path(__file__).resolve().with_name("concepts.png")
POINTS = 150
GREY, CLASSES = np.array([0.72, 0.74, 0.78]), np.array([[0.23, 0.49, 0.84], [0.93, 0.52, 0.13]])
GIVEN = 2  # labels per class


def main() -> None:
    points, truth = make_moons(POINTS, noise=0.07, random_state=3)
    rng = np.random.default_rng(1)
    labels = np.full(POINTS, -1)
    for label in (0, 1):
        labels[rng.choice(np.flatnonzero(truth == label), GIVEN, replace=False)] = label
    # cosines of descriptors are the similarity; points of a plane lifted onto a sphere have them
    sphere = np.column_stack([points - points.mean(axis=0), np.full(POINTS, 1.0)])
    found = dlp_plugins.propagate(sphere.astype(np.float32), labels, k=6, gamma=40, alpha=0.9)
    graph = found.graph.to_scipy().tocoo()
    pairs = np.stack([graph.row, graph.col], axis=1)[graph.row < graph.col]

    figure = Figure(figsize=(11, 2.4), layout="constrained")
    titles = (
        f"1  {POINTS} descriptors, {2 * GIVEN} labels", "2  nearest-neighbour graph",
        "3  labels spread over it", "4  certainty weighs each label",
    )  # fmt: skip
    spread, certainty = CLASSES[found.labels.numpy()], found.certainty.numpy()[:, None]
    plain = np.where(labels[:, None] >= 0, CLASSES[labels], GREY)
    colors = (plain, plain, spread, certainty * spread + (1 - certainty) * GREY)
    for i, axes in enumerate(figure.subplots(1, 4)):
        axes.set_title(titles[i], fontsize=10, loc="left")
        axes.set(xticks=[], yticks=[], aspect="equal")
        axes.axis("off")
        if i > 0:
            lines = LineCollection(points[pairs], colors="#c4c8d0", linewidths=0.5, zorder=0)
            axes.add_collection(lines)
        axes.scatter(*points.T, s=14, c=colors[i], linewidths=0)
        marked = labels >= 0
        axes.scatter(
            *points[marked].T, s=70, c=colors[i][marked], edgecolors="black", linewidths=1.2
        )
    figure.savefig(PICTURE, dpi=140, facecolor="white", bbox_inches="tight")
    right = (found.labels.numpy() == truth)[labels < 0].mean()
    print(f"{PICTURE.name}: {right:.1%} right, {PICTURE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
