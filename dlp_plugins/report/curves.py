"""Curves by epoch: errors, losses, accuracy and certainty of pseudo-labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dlp_plugins.report.page import Figure
from dlp_plugins.report.plot import INK, LINES
from dlp_plugins.report.points import Absent, printable

SIZE = (3.7, 2.7)  # inches: four stand side by side
MOST_POINTS = 400  # of a curve; of more epochs every second, third, ... is drawn
History = Sequence[Mapping[str, Any]]
ERRORS = {"test_error": "", "teacher_test_error": ", teacher"}


def curve_figures(histories: Mapping[str, History]) -> list[Figure | Absent]:
    """Of runs by name; each history holds the lines of metrics.jsonl."""
    if not any(histories.values()):
        return [Absent("There are no curves: no run kept metrics.jsonl (tracker jsonl).")]
    return [
        _figure("test-error", "Test error", "test error, %", _lines(histories, ERRORS), True),
        _figure("loss", "Training loss", "mean loss of the epoch", _losses(histories), True),
        _figure(
            "pseudo-label-accuracy", "Accuracy of pseudo-labels", "correct, %",
            _lines(histories, {"pseudo_label_accuracy": ""}),
        ),
        _figure(
            "mean-certainty", "Certainty of pseudo-labels", "mean certainty",
            _lines(histories, {"certainty": ""}),
        ),
    ]  # fmt: skip


Line = tuple[str, int, list[tuple[int, float]], int | None]
"""Name, number of its run, points (epoch from 1, value), epoch before stage two."""


def _lines(histories: Mapping[str, History], keys: Mapping[str, str]) -> list[Line]:
    found = []
    for number, (run, history) in enumerate(histories.items()):
        for key, title in keys.items():
            points = [
                (i + 1, float(line[key]))
                for i, line in enumerate(history)
                if isinstance(line.get(key), int | float) and math.isfinite(line[key])
            ]
            if points:
                shown = points[:: 1 + len(points) // MOST_POINTS]
                shown += [points[-1]] if shown[-1] != points[-1] else []
                found.append((printable(run, 28) + title, number, shown, _border(history)))
    return found


def _losses(histories: Mapping[str, History]) -> list[Line]:
    """All losses of a single run; of several the total."""
    if len(histories) > 1:
        return _lines(histories, {"loss_total": ""})
    (history,) = histories.values()
    keys = sorted({key for line in history for key in line if key.startswith("loss_")})
    if {"loss_supervised", "loss_total"} == set(keys) and all(
        line.get("loss_supervised") == line.get("loss_total") for line in history
    ):
        keys = ["loss_total"]
    found = []
    for number, key in enumerate(keys):
        name = key.removeprefix("loss_")
        found += [(name, number, *rest) for _, _, *rest in _lines({"": history}, {key: ""})]
    return found  # type: ignore[return-value]


def _border(history: History) -> int | None:
    """The last epoch of stage one, where there is a stage two after it."""
    stages = [line.get("stage") for line in history]
    changes = [i for i in range(1, len(stages)) if stages[i] != stages[i - 1]]
    return changes[0] if changes else None


def _figure(
    name: str, title: str, axis: str, lines: list[Line], from_zero: bool = False
) -> Figure | Absent:
    if not lines:
        return Absent(f"{title}: no run measured it.")
    borders = {b for _, _, p, b in lines if b is not None and p[0][0] <= b}

    def paint(axes: Any) -> None:
        from matplotlib.ticker import MaxNLocator

        dashed = {", teacher"}
        for label, number, points, _ in lines:
            style = "--" if any(label.endswith(end) for end in dashed) else "-"
            x, y = zip(*points, strict=True)
            color = LINES[number % len(LINES)]
            mark = "o" if len(points) <= 40 else None
            axes.plot(x, y, style, color=color, label=label, marker=mark, markersize=3)
        if len(borders) == 1:
            axes.axvline(*borders, color=INK, linewidth=0.8, linestyle=":")
        axes.set(xlabel="epoch", ylabel=axis)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if from_zero:
            axes.set_ylim(bottom=0)
        if len(lines) > 1:
            axes.legend(loc="best", ncols=1 if len(lines) < 6 else 2)

    caption = f"Last: {', '.join(f'{label} {points[-1][1]:.4g}' for label, _, points, _ in lines)}."
    if len(lines) == 1:
        caption = f"Last: {lines[0][2][-1][1]:.4g}."
    if len(borders) == 1:
        caption += " Dotted: from here on pseudo-labels are used."
    return Figure(name, title, caption, paint, SIZE)
