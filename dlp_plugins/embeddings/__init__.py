"""Embeddings in files and a few labels in, a table of pseudo-labels out; no training."""
