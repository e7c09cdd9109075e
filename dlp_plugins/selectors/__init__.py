"""Selectors of points to label next: one file each, found by `dlp_plugins.registry.selectors`."""

from dlp_plugins.selectors.contract import Pool, Selector

__all__ = ["Pool", "Selector"]
