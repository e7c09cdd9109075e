"""From photos to embeddings, and from a trained network to predictions."""
