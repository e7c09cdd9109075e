"""Affinities: how alike two neighbours are. One file each, found by `registry.affinities`."""

from dlp_plugins.affinities.contract import Affinity

__all__ = ["Affinity"]
