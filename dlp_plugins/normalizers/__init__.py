"""Normalizers of scores: one file each, found by `dlp_plugins.registry.normalizers`."""

from dlp_plugins.normalizers.contract import Normalizer

__all__ = ["Normalizer"]
