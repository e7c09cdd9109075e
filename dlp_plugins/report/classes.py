"""Which classes are taken for which: confusion matrix and accuracy by class."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlp_plugins.report.page import Figure
from dlp_plugins.report.plot import GOOD, INK
from dlp_plugins.report.points import Absent, Points, measurable, printable

MOST_NAMED = 25  # classes whose names and counts are readable in the matrix
MOST_LETTERS = 36  # of names beside one another below the matrix
MOST_BARS = 16


def confusion(points: Points) -> np.ndarray:
    """[c, c + 1] int64 counts of the measured points: true class by label; last, without label."""
    assert points.truth is not None
    c = len(points.classes)
    found = np.zeros((c, c + 1), dtype=np.int64)
    np.add.at(found, (points.truth[points.measured], points.labels[points.measured]), 1)
    return found


def confusion_figure(name: str, points: Points | Absent, title: str) -> Figure | Absent:
    checked = measurable(points)
    if isinstance(checked, Absent):
        return checked
    counts = confusion(checked)
    present = np.flatnonzero(counts.sum(axis=1) + counts[:, :-1].sum(axis=0))
    shown = counts[np.ix_(present, present)]
    names = [printable(checked.classes[i], 12) for i in present.tolist()]
    shares = shown / np.maximum(counts[present].sum(axis=1, keepdims=True), 1)

    def paint(axes: Any) -> None:
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.grid(visible=False)
        axes.set(xlabel="label", ylabel="true class")
        if len(present) > MOST_NAMED:
            axes.set(xticks=[], yticks=[])
            return
        fit = max(map(len, names)) * len(present) <= MOST_LETTERS
        axes.set_xticks(range(len(present)), names, rotation=0 if fit else 90)
        axes.set_yticks(range(len(present)), names)
        axes.tick_params(length=0)
        small = 8.5 if len(present) <= 10 else 5.5
        for i, j in zip(*np.nonzero(shown), strict=True):
            color = "white" if shares[i, j] > 0.5 else "#1f2433"
            axes.text(j, i, f"{shown[i, j]}", ha="center", va="center", color=color, fontsize=small)

    off = shown - np.diag(np.diag(shown))
    caption = (
        f"Counts of {len(checked.measured):,} {checked.what}; colour: share of the true class."
    )
    if off.any():
        i, j = (int(present[at]) for at in np.unravel_index(off.argmax(), off.shape))
        caption += (
            f" Most frequent: {printable(checked.classes[i], 24)} labelled "
            f"{printable(checked.classes[j], 24)}, {off.max():,} times."
        )
    if lost := int(counts[:, -1].sum()):
        caption += f" {lost:,} without a label are not shown."
    return Figure(name, title, caption, paint, (4.7, 4.4))


def class_figure(name: str, points: Points | Absent, title: str) -> Figure | Absent:
    """Accuracy of each class, the lowest of many."""
    checked = measurable(points)
    if isinstance(checked, Absent):
        return checked
    counts = confusion(checked)
    total = counts.sum(axis=1)
    classes = np.flatnonzero(total)
    accuracy = 100 * np.diag(counts)[classes] / total[classes]
    order = np.argsort(accuracy, kind="stable")[:MOST_BARS]
    if len(classes) <= MOST_BARS:
        order = np.arange(len(classes))
    mean = float(accuracy.mean())

    def paint(axes: Any) -> None:
        names = [printable(checked.classes[classes[i]], 18) for i in order]
        places = np.arange(len(order))
        axes.barh(places, accuracy[order], 0.72, color=GOOD)
        axes.set_yticks(places, names)
        axes.tick_params(axis="y", length=0)
        for place, value in zip(places, accuracy[order], strict=True):
            inside = value > 15
            axes.text(
                value + (-1.5 if inside else 1.5), place, f"{value:.0f}", va="center",
                ha="right" if inside else "left", color="white" if inside else INK, fontsize=8,
            )  # fmt: skip
        axes.axvline(mean, color=INK, linewidth=0.8, linestyle=":")
        axes.set(xlim=(0, 100), xlabel="correct, %")
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")

    caption = f"Dotted: the mean of {len(classes):,} classes, {mean:.1f} %."
    if len(order) < len(classes):
        caption += f" Shown are the {len(order)} with the lowest accuracy."
    return Figure(name, title, caption, paint, (4.7, max(2.2, 0.9 + 0.27 * len(order))))
