"""Consistency methods: one file each, found by `dlp_plugins.registry.consistency`."""

from dlp_plugins.consistency._terms import cross_entropy
from dlp_plugins.consistency.contract import Batch, Consistency, Step, supervised_loss

__all__ = ["Batch", "Consistency", "Step", "cross_entropy", "supervised_loss"]
