"""Reliability curve: how often labels of a certainty are right (Guo et al., ICML 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dlp_plugins.propagation.quality import calibration_error
from dlp_plugins.report.page import Figure
from dlp_plugins.report.plot import GOOD, INK, LINE
from dlp_plugins.report.points import Absent, Points, measurable

BINS = 10


@dataclass(frozen=True)
class Reliability:
    """Bins of equal width that hold points.

    certainty, accuracy: mean of each bin, 0 to 1. count: of its points.
    error: `calibration_error` over these bins.
    """

    certainty: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray
    error: float


def reliability(certainty: np.ndarray, right: np.ndarray, bins: int = BINS) -> Reliability:
    """Of certainties [m] in 0..1 and whether each label is right [m]."""
    which = np.minimum((certainty * bins).astype(np.int64), bins - 1)
    count = np.bincount(which, minlength=bins)
    full = count > 0
    mean = np.bincount(which, certainty, bins)[full] / count[full]
    accuracy = np.bincount(which, right.astype(float), bins)[full] / count[full]
    error = calibration_error(torch.from_numpy(certainty), torch.from_numpy(right), bins)
    return Reliability(mean, accuracy, count[full], error)


def reliability_figure(name: str, points: Points | Absent, title: str) -> Figure | Absent:
    checked = measurable(points)
    if isinstance(checked, Absent):
        return checked
    certainty = np.clip(checked.certainty[checked.measured].astype(np.float64), 0, 1)
    found = reliability(certainty, checked.right)

    def paint(axes: Any) -> None:
        shares = found.count / found.count.sum()
        axes.bar(found.certainty, shares, 0.05, color=LINE, label="share of points")
        axes.plot([0, 1], [0, 1], ":", color=INK, linewidth=0.9, label="ideal")
        axes.plot(found.certainty, found.accuracy, "o-", color=GOOD, markersize=4, label="accuracy")
        axes.set(xlim=(0, 1), ylim=(0, 1.03), xlabel=checked.certainty_name, ylabel="share")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3)

    caption = (
        f"Expected calibration error {found.error:.3f} in {BINS} bins of {len(certainty):,} "
        f"{checked.what}."
    )
    if checked.certainty_name != "probability":
        caption += " A certainty need not be a probability: what counts is that the curve rises."
    return Figure(name, title, caption, paint)
