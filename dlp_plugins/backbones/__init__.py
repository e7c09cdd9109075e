"""Backbones: one file each, found by `dlp_plugins.registry.backbones`."""

from dlp_plugins.backbones.contract import Backbone

__all__ = ["Backbone"]
