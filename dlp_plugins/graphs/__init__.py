"""Graph builders: one file per builder, found by `dlp_plugins.registry.graphs`."""

from dlp_plugins.graphs.contract import GraphBuilder, K

__all__ = ["GraphBuilder", "K"]
