"""Pseudo-label weighters: one file each, found by `dlp_plugins.registry.weighters`."""

from dlp_plugins.weighters.contract import Weighter

__all__ = ["Weighter"]
