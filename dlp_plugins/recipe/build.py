"""Builds the components that a recipe names."""

from __future__ import annotations

from typing import Any

from dlp_plugins import registry
from dlp_plugins.propagation import Propagator
from dlp_plugins.propagation.class_shares import to_class_shares
from dlp_plugins.recipe.model import Part, Recipe


def build_part(recipe: Recipe, key: str, **context: Any) -> Any:
    """The component under a recipe's key; `context` are the arguments that the program gives."""
    part: Part = getattr(recipe, key)
    return registry.of_kind(key).build(part.name, **context, **part.params)


def build_propagator(recipe: Recipe) -> Propagator:
    """All parts of a propagation, as the recipe names them."""
    parts = {key: build_part(recipe, key) for key in registry.PROPAGATION}
    return Propagator(
        **parts,
        mutual=recipe.graph.mutual,
        certainty_scale=recipe.pseudo_labels.certainty_scale,
        class_shares=to_class_shares(recipe.pseudo_labels.class_shares),
    )
