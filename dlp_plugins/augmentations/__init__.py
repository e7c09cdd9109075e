"""Augmentations: weak, strong and plain views of a batch, one kind of augmentation per file."""
