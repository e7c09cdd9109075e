"""Sources of pseudo-labels, one component per file."""
