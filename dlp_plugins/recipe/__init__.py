"""Recipes: what they may hold, where they lie, how they are checked, what they build."""
