"""Class balancers: one file each, found by `dlp_plugins.registry.balancers`."""

from dlp_plugins.balancers.contract import Balancer

__all__ = ["Balancer"]
