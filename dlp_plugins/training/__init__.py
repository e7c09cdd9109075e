"""The loop: stages, batches, losses, checkpoints, metrics. Knows components only by their contract."""
