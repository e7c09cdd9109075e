"""Data sets: one file each, found by `dlp_plugins.registry.datasets`."""

from dlp_plugins.datasets.contract import Dataset, Images, LazyImages, TensorImages

__all__ = ["Dataset", "Images", "LazyImages", "TensorImages"]
