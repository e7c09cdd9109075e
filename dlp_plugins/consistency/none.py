"""No consistency: the weighted labels alone, the paper's method without Mean Teacher."""

from __future__ import annotations

from dataclasses import dataclass

from dlp_plugins.consistency.contract import Consistency
from dlp_plugins.registry import consistency


@consistency.register("none")
@dataclass
class NoConsistency(Consistency):
    """Only the weighted cross entropy of labels and pseudo-labels (Iscen et al., eq. 12)."""
