"""Histogram of the certainty of right and wrong labels, as on the paper's poster."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlp_plugins.report.page import Figure
from dlp_plugins.report.plot import BAD, GOOD
from dlp_plugins.report.points import Absent, Points, measurable, percent

BINS = 20


def certainty_figure(name: str, points: Points | Absent, title: str) -> Figure | Absent:
    """Of the measured points; of all where no truth is known."""
    if isinstance(points, Absent):
        return points
    checked = measurable(points)
    edges = np.linspace(0, 1, BINS + 1)
    if isinstance(checked, Absent):
        return _plain(name, points, title, edges)
    certainty, right = points.certainty[points.measured], points.right
    counts = [np.histogram(certainty[which], edges)[0] for which in (right, ~right)]

    def paint(axes: Any) -> None:
        for count, color, label, shift in zip(
            counts, (GOOD, BAD), ("right", "wrong"), (0.0, 0.5), strict=True
        ):
            width = 0.42 / BINS
            axes.bar(
                edges[:-1] + (0.06 + shift) / BINS, count, width, align="edge", color=color,
                label=f"{label} ({count.sum():,})",
            )  # fmt: skip
        axes.set(xlim=(0, 1), xlabel=points.certainty_name, ylabel=points.what)
        axes.grid(visible=False, axis="x")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)

    without = "" if points.given is None else "without a given label "
    means = [f"{certainty[w].mean():.2f}" if w.any() else "-" for w in (right, ~right)]
    caption = (
        f"{percent(right.mean())} of {len(right):,} {points.what} {without}are right. Mean "
        f"{points.certainty_name}: right {means[0]}, wrong {means[1]}."
    )
    return Figure(name, title, caption, paint)


def _plain(name: str, points: Points, title: str, edges: np.ndarray) -> Figure | Absent:
    shown = points.certainty[~points.known & (points.labels >= 0)]
    if not len(shown):
        return Absent(f"None of {points.what} has a label that was not given.")
    counts = np.histogram(shown, edges)[0]

    def paint(axes: Any) -> None:
        axes.bar(edges[:-1], counts, 0.9 / BINS, align="edge", color=GOOD)
        axes.set(xlim=(0, 1), xlabel=points.certainty_name, ylabel=points.what)
        axes.grid(visible=False, axis="x")

    caption = (
        f"{len(shown):,} {points.what}, mean {points.certainty_name} {shown.mean():.2f}. Which of "
        "them are right is not known."
    )
    return Figure(name, title, caption, paint)
