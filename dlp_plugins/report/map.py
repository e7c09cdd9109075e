"""A map of descriptors: two principal components, coloured by label, given labels marked."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlp_plugins.report.page import Figure
from dlp_plugins.report.plot import INK
from dlp_plugins.report.points import Absent, Embedded, Points, printable

MOST_POINTS = 5_000
MOST_IN_LEGEND = 12
MOST_LARGE_STARS = 200
GREY = "#9aa1b5"  # no label


def class_colors(classes: int) -> list[Any]:
    """A colour of each class, as different as so many can be."""
    from matplotlib import colormaps

    if classes <= 10:
        return [colormaps["tab10"](i) for i in range(classes)]
    return [colormaps["hsv"](i / classes) for i in range(classes)]


def map_figure(
    name: str, points: Points | Absent, embedded: Embedded | Absent, title: str
) -> Figure | Absent:
    for needed in (points, embedded):
        if isinstance(needed, Absent):
            return needed
    assert isinstance(points, Points)
    assert isinstance(embedded, Embedded)
    which = embedded.points
    labels, given = points.labels[which], points.known[which]
    present = np.unique(labels[labels >= 0])

    def paint(axes: Any) -> None:
        x, y = embedded.map.T
        colors = class_colors(len(points.classes))
        size = 5 if len(which) > 1000 else 9
        many = int(given.sum()) > MOST_LARGE_STARS
        none = labels < 0
        axes.scatter(x[none], y[none], size, GREY, linewidths=0, alpha=0.5, rasterized=True)
        for j in present:
            own = (labels == j) & ~given
            color = [colors[j]]
            axes.scatter(x[own], y[own], size, color, linewidths=0, alpha=0.65, rasterized=True)
        for j in present:
            own = (labels == j) & given
            axes.scatter(
                x[own], y[own], 16 if many else 34, [colors[j]], marker="*", edgecolors=INK,
                linewidths=0.3 if many else 0.6, rasterized=many,
            )  # fmt: skip
        axes.set(xticks=[], yticks=[])
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        if len(present) <= MOST_IN_LEGEND:
            dots = [axes.scatter([], [], 22, [colors[j]]) for j in present]
            axes.legend(  # by name: matplotlib leaves out labels that begin with "_"
                dots, [printable(points.classes[j], 14) for j in present],
                loc="upper center", bbox_to_anchor=(0.5, 0), ncols=min(5, len(present)),
                handletextpad=0.1, columnspacing=0.9,
            )  # fmt: skip

    caption = f"Two principal components of {len(which):,} {points.what}, coloured by label."
    if points.given is not None:
        caption += f" Stars: the {int(given.sum()):,} labels that were given."
    if len(which) < len(points):
        caption += f" Drawn at random from {len(points):,}."
    return Figure(name, title, caption, paint, (4.7, 4.4))
