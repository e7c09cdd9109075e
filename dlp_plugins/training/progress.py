"""Where a run stands; saved as numbers with every checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SUPERVISED, PROPAGATION = "supervised", "propagation"
"""The two stages: labelled examples alone, then with pseudo-labels."""

Network = str
STUDENT: Network = "student"
TEACHER: Network = "teacher"


def metric(network: Network, name: str) -> str:
    """A metric's name for that network: the student's has none of its own, the teacher's has."""
    return name if network == STUDENT else f"{network}_{name}"


@dataclass
class Progress:
    """stage: index of the stage under way. epoch, step: done of it and of its present epoch.

    sums: losses of this epoch, summed over its steps. health: of the last refresh of pseudo-labels.
    history: metrics of every epoch done. best: of each stage and network, the errors at its best
    epoch by validation. images, train_seconds: of all steps so far. seconds: of the whole run.
    """

    stage: int = 0
    epoch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    health: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, dict[Network, dict[str, float]]] = field(default_factory=dict)
    images: int = 0
    train_seconds: float = 0.0
    seconds: float = 0.0
