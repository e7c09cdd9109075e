"""Results of `dlp bench`: means as bars, standard deviations, and the single seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dlp_plugins.bench.table import ERRORS, RowResult, columns
from dlp_plugins.report.page import Figure
from dlp_plugins.report.plot import BAD, GOOD, INK
from dlp_plugins.report.points import printable


def bar_figures(rows: Sequence[RowResult]) -> list[Figure]:
    """One figure for each column of the table."""
    return [_figure(key, title, rows) for key, title in columns(rows).items()]


def _figure(key: str, title: str, rows: Sequence[RowResult]) -> Figure:
    shown = [row for row in rows if row.values.get(key)]
    published = key == "test_error" and any(row.published for row in shown)
    unit = "seconds" if key == "seconds" else "%"
    heading = f"Test error: {title}" if key in ERRORS and title != "error" else title.capitalize()
    if key == "test_error":
        heading = "Test error"

    def paint(axes: Any) -> None:
        for place, row in enumerate(shown):
            figure = row.mean_and_deviation(key)
            assert figure is not None
            mean, deviation = figure
            axes.barh(place, mean, 0.62, color=GOOD, alpha=0.75)
            values = row.values[key]
            if deviation is not None:
                axes.errorbar(mean, place, xerr=deviation, color=INK, capsize=3, linewidth=1.2)
                axes.plot(values, np.full(len(values), place), "o", color=INK, markersize=2.5)
            if published and row.published:
                axes.plot(row.published[0], place, "D", color=BAD, markersize=5)
        axes.set_yticks(range(len(shown)), [printable(row.row, 30) for row in shown])
        axes.tick_params(axis="y", length=0)
        axes.set(xlabel=unit, xlim=(0, None))
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")

    deviations = any((row.mean_and_deviation(key) or (0, None))[1] is not None for row in shown)
    caption = "Mean of the runs"
    caption += ", standard deviation, and each run as a point." if deviations else "."
    if published:
        caption += " Orange: as published."
    size = (4.7, max(1.9, 0.9 + 0.34 * len(shown)))
    return Figure(f"bars-{key.replace('_', '-')}", heading, caption, paint, size)
