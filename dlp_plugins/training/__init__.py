"""The loop: stages, batches, losses, checkpoints, metrics. Knows components by contract alone."""
