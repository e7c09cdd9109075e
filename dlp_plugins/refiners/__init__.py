"""Refiners of propagated labels: one file each, found by `dlp_plugins.registry.refiners`."""

from dlp_plugins.refiners.contract import Given, Refined, Refiner

__all__ = ["Given", "Refined", "Refiner"]
