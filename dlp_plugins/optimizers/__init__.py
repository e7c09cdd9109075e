"""Optimizers, one component per file."""
