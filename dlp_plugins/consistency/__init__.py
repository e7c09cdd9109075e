"""Consistency methods: one file each, found by `dlp_plugins.registry.consistency`."""

from dlp_plugins.consistency.contract import Batch, Consistency, Step, weighted_cross_entropy

__all__ = ["Batch", "Consistency", "Step", "weighted_cross_entropy"]
