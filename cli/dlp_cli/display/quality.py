"""Rows of a summary: how good labels are, where the true ones are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlp_plugins.propagation.quality import Quality


def quality_rows(quality: Quality | None) -> list[tuple[str, str]]:
    """None where no true labels are given."""
    if quality is None:
        return []
    points = f"{quality.points:,} unlabelled points with a true label"
    rows = [("accuracy", f"{100 * quality.accuracy:.2f} % of {points}")]
    if quality.coverage is not None:
        curve = ", ".join(f"{100 * s:.0f} %: {100 * a:.1f}" for s, a in quality.coverage.items())
        rows += [
            ("calibration error", f"{quality.calibration_error:.3f} (15 bins)"),
            ("Brier score", f"{quality.brier:.3f}"),
            ("AUROC of probability", f"{quality.auroc:.3f}"),
            ("accuracy at coverage", curve),
        ]
    return rows
