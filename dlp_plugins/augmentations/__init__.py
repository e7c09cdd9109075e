"""Augmentations: plain, weak and strong views of a batch, one component per file."""
