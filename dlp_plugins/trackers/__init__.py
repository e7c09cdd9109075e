"""Trackers: where a run's metrics go, one component per file."""
