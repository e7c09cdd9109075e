"""How good probabilities of labels are, where the true labels are known.

Shapes: b points. `probability` [b] is that of each point's label, `right` [b] whether it is true.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BINS = 15
COVERAGES = (0.5, 0.7, 0.8, 0.9, 0.95, 1.0)


def calibration_error(probability: Tensor, right: Tensor, bins: int = BINS) -> float:
    """Mean distance of probability and accuracy over bins of equal width, weighted by their points.

    The expected calibration error (Naeini, Cooper, Hauskrecht, AAAI 2015); 0 without points.
    """
    p, r = probability.double(), right.double()
    place = (p * bins).long().clamp(0, bins - 1)
    gap = torch.zeros(bins, dtype=torch.float64).index_add_(0, place, p - r)
    return float(gap.abs().sum()) / max(1, len(p))


def brier_score(probability: Tensor, right: Tensor) -> float:
    """Mean square of probability less 1 for a right label, 0 for a wrong one (Brier, 1950)."""
    return float((probability.double() - right.double()).square().mean()) if len(right) else 0.0


def ranking(probability: Tensor, right: Tensor) -> float:
    """AUROC: how often a right label has the larger probability than a wrong one; ties count half.

    NaN where all are right, or all wrong.
    """
    _, place, counts = probability.double().unique(return_inverse=True, return_counts=True)
    rank = counts.cumsum(0).double() - (counts.double() - 1) / 2
    good = int(right.sum())
    bad = len(right) - good
    if not good or not bad:
        return float("nan")
    return float((rank[place][right].sum() - good * (good + 1) / 2) / (good * bad))


def coverage(probability: Tensor, right: Tensor, shares: tuple[float, ...] = COVERAGES) -> list:
    """Accuracy among the most probable labels, for shares of the points that keep their label."""
    order = probability.argsort(descending=True, stable=True)
    total = right[order].double().cumsum(0)
    kept = [max(1, round(share * len(right))) for share in shares]
    return [float(total[k - 1]) / k for k in kept]


@dataclass(frozen=True)
class Quality:
    """Of the labels of points whose true label is known.

    points: how many. accuracy: share of right labels. calibration_error, brier, auroc: as the
    functions here; None where there are no probabilities. coverage: accuracy by share of points.
    """

    points: int
    accuracy: float
    calibration_error: float | None = None
    brier: float | None = None
    auroc: float | None = None
    coverage: dict[float, float] | None = None

    @classmethod
    def of(cls, labels: Tensor, truth: Tensor, probability: Tensor | None) -> Quality:
        """Of labels [b] and true labels [b]."""
        right = labels == truth
        accuracy = float(right.double().mean())
        if probability is None:
            return cls(len(right), accuracy)
        return cls(
            len(right),
            accuracy,
            calibration_error(probability, right),
            brier_score(probability, right),
            ranking(probability, right),
            dict(zip(COVERAGES, coverage(probability, right), strict=True)),
        )
