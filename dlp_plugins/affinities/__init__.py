"""Affinities: edge weights from similarities. One file each, found by `registry.affinities`."""

from dlp_plugins.affinities.contract import Affinity

__all__ = ["Affinity"]
