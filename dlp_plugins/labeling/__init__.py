"""Labelling by hand: every answer is kept at once and updates the labels of all points."""
