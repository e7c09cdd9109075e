"""Transforms of descriptors: one file each, found by `dlp_plugins.registry.transforms`."""

from dlp_plugins.transforms.contract import Transform

__all__ = ["Transform"]
