"""Labels and certainties that a propagation gives to every point.

Shapes: n points, c classes. Labels are int64, -1 where there is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from dlp_plugins.graph import Graph
from dlp_plugins.inputs import UNLABELED
from dlp_plugins.notebook.html import table
from dlp_plugins.propagation.health import Health
from dlp_plugins.refiners.contract import Classifier
from dlp_plugins.units import counts_by_class

if TYPE_CHECKING:
    from dlp_plugins.propagation.calibration import Calibration

CertaintyScale = Literal["unlabeled", "all"]


@dataclass(frozen=True, repr=False)
class Assignment:
    """Labels of n points and how far to trust them.

    labels: [n] int64; a labelled point keeps its own, an unreached one has -1.
    certainty: [n] float32 in 0..1; 1 for a labelled point, 0 for an unreached one.
    reached: [n] bool, whether some label reached the point over the graph; a refiner may give a
        label to the others too.
    class_weights: [c] float32 from the balancer.
    """

    labels: Tensor
    certainty: Tensor
    reached: Tensor
    class_weights: Tensor
    health: Health

    @property
    def weights(self) -> Tensor:
        """[n] float32: w_i z_(y_i), the factor of each example's loss; 0 for an unreached point."""
        return self.certainty * self.class_weights[self.labels.clamp(min=0)]

    def __repr__(self) -> str:
        labeled = int((self.labels != UNLABELED).sum())
        return (
            f"<{type(self).__name__}: {len(self.labels):,} points, {labeled:,} of them with a "
            f"label, {len(self.class_weights):,} classes; certainty {quartiles(self.certainty)}>"
        )

    def _repr_html_(self) -> str:
        """For a notebook: how many points each class has, and whether to trust them."""
        found = self.labels[self.labels != UNLABELED]
        counts = torch.bincount(found, minlength=len(self.class_weights)).tolist()
        health = self.health
        rows: list[tuple[str, str]] = [
            ("points per class", counts_by_class(counts)),
            ("points without a label", f"{len(self.labels) - len(found):,}"),
            ("certainty, quartiles", quartiles(self.certainty)),
        ]
        if (probability := getattr(self, "probability", None)) is not None:
            rows.append(("probability, quartiles", quartiles(probability)))
        rows += [
            ("components without a label", f"{health.unlabeled_components:,}"),
            ("classes without a point", f"{health.empty_classes:,}"),
            ("solver", health.convergence.describe()),
        ]
        return table(f"Labels of {len(self.labels):,} points, {len(counts):,} classes", rows)


@dataclass(frozen=True, repr=False)
class PseudoLabels(Assignment):
    """What a network trains on.

    probabilities: [n, c] float32, rows sum to 1, or are 0 where no label reaches.
    scores: [n, c] float32, the solver's Z; None where the labels came from a network.
    classifier: the refiner's, for new points, if it has one.
    class_shares: pi [c] float32, the shares of the classes among unlabelled points that were wanted
        or estimated; None where the labels came from a network.
    graph: that the labels spread over; None where they came from a network.
    probability: [n] float32, that the label is right, calibrated; None where not asked for.
    calibration: how that was found.
    unknown: [n] float32 in 0..1, larger for a point of no known class; None where not asked for.
    """

    probabilities: Tensor
    scores: Tensor | None = None
    classifier: Classifier | None = None
    class_shares: Tensor | None = None
    graph: Graph | None = None
    probability: Tensor | None = None
    calibration: Calibration | None = None
    unknown: Tensor | None = None


def quartiles(x: Tensor) -> str:
    """Quartiles of x [n] in words; a dash without points."""
    found = np.quantile(x.cpu().numpy(), (0.25, 0.5, 0.75)).tolist() if len(x) else []
    return ", ".join(f"{q:.3f}" for q in found) or "-"


def label_matrix(labels: Tensor, num_classes: int) -> Tensor:
    """Y [n, c] float32: each column the indicator of its labelled points over their number.

    A class without a labelled point gets a column of zeros.
    """
    # no mask and no `bincount`: on a GPU the shape of what they give would be waited for
    labeled, column = labels != UNLABELED, labels.clamp(min=0).long()
    counts = torch.zeros(num_classes, dtype=torch.int64, device=labels.device)
    counts.index_add_(0, column, labeled.long())
    shares = torch.where(labeled, 1.0 / counts[column], 0.0)
    y = torch.zeros(len(labels), num_classes, device=labels.device)
    return y.scatter_(1, column[:, None], shares[:, None])


def apply_given_labels(
    assigned: Tensor, certainty: Tensor, labels: Tensor, scale: CertaintyScale = "unlabeled"
) -> tuple[Tensor, Tensor]:
    """Labels and certainties [n] of all points: a labelled point keeps its own label, certainty 1.

    Before that certainties are divided by the largest: over the unlabelled points, or over all
    points, labelled ones included, as the authors' code does. Where no point is certain at all,
    they stay 0.
    """
    labeled = labels != UNLABELED
    compared = certainty if scale == "all" else certainty[~labeled]
    largest = compared.max() if len(compared) else certainty.new_zeros(())
    scaled = certainty / largest if largest > 0 else certainty
    return torch.where(labeled, labels, assigned), torch.where(labeled, 1.0, scaled)
