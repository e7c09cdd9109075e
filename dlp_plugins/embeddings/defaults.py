"""The components of a propagation of embeddings, and how much memory it may take, by default."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dlp_plugins.embeddings.prototypes import ALPHA as PROTOTYPE_ALPHA
from dlp_plugins.embeddings.prototypes import PARTS as PROTOTYPE_PARTS
from dlp_plugins.embeddings.prototypes import K as PROTOTYPE_K
from dlp_plugins.embeddings.sharded import DEFAULTS as SHARDED
from dlp_plugins.errors import UsageError, did_you_mean
from dlp_plugins.graphs._list_file import most_neighbors, read_settings
from dlp_plugins.graphs.file import FileGraph
from dlp_plugins.recipe.check import check_layers
from dlp_plugins.recipe.files import Layer, override_layer
from dlp_plugins.recipe.model import Recipe
from dlp_plugins.registry import (
    EMBEDDINGS,
    EMBEDDINGS_ALPHA,
    EMBEDDINGS_K,
    EMBEDDINGS_START_ALPHA,
    graph_for,
)

# The table holds no weights of classes, so the balancer has nothing to do here.
PARTS = tuple(part for part in EMBEDDINGS if part != "balancer")
# The settings of pseudo_labels that matter without training.
PSEUDO_LABELS = {"certainty_scale", "class_shares"}
TRANSFORM = "transform."  # before its parameters in the settings of a graph's file
FREE_SHARE = 0.75  # of free memory, where no budget is given


def propagation_recipe(
    settings: Iterable[str],
    points: int = 0,
    named: bool = False,
    started: bool = False,
    sharded: bool = False,
    transform: Mapping[str, Any] | None = None,
) -> Recipe:
    """The default components for so many embeddings, with what the settings change.

    With graph `file` the transform is by default the one that its lists were found with, and k is
    that of the file: of another library's at most `FileGraph`'s own.

    Args:
        named: the classes have prototypes, which join the graph.
        started: from a classifier.
        sharded: processes share the rows of the graph.
        transform: its default name and parameters, as `transform_of` gives them.

    Raises:
        UsageError: a setting of anything else in a recipe.
        DataError: the file of a graph cannot be read.
    """
    layer = override_layer(settings)
    defaults: dict[str, Any] = {part: {"name": EMBEDDINGS[part]} for part in PARTS}
    defaults["graph"] = {"name": graph_for(points), "k": EMBEDDINGS_K}
    defaults["solver"]["alpha"] = EMBEDDINGS_START_ALPHA if started else EMBEDDINGS_ALPHA
    graph = layer.data.get("graph")
    if isinstance(graph, dict) and graph.get("name") == "file" and "path" in graph:
        path = Path(str(graph["path"]))
        found = read_settings(path)
        transform = transform or transform_of(found)
        most = most_neighbors(path)
        defaults["graph"]["k"] = max(1, most if "k" in found else min(most, FileGraph.k))
    defaults["transform"] |= transform or {}
    if named:
        defaults |= {part: {"name": name} for part, name in PROTOTYPE_PARTS.items()}
        defaults["graph"]["k"], defaults["affinity"]["gamma"] = PROTOTYPE_K, 1.0
        defaults["solver"]["alpha"] = PROTOTYPE_ALPHA
    if sharded:
        for part, name in SHARDED.items():
            defaults[part]["name"] = name
    known = (*PARTS, "pseudo_labels")
    for key, value in layer.data.items():
        if key not in known:
            raise UsageError(
                f"--set {key}: unknown here.{did_you_mean(key, known)} Known: {', '.join(known)}."
            )
        if key == "pseudo_labels" and not (
            isinstance(value, dict) and value.keys() <= PSEUDO_LABELS
        ):
            both = " and ".join(sorted(PSEUDO_LABELS))
            raise UsageError(f"--set pseudo_labels: of that table only {both} are known here.")
    recipe = check_layers([Layer("default", defaults), layer], EMBEDDINGS)
    for part in ("transform", "refiner") if named else ():
        if getattr(recipe, part).name != "none":
            raise UsageError(
                f"--set {part}: prototypes need {part}=none, as images and names lie "
                "in different regions of a model's space."
            )
    return recipe


def transform_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Name and parameters of the transform that neighbour lists were found with.

    settings: of a file, as `graph_file.settings_of` gives them; empty where it does not tell.
    """
    if "transform" not in settings:
        return {}
    own = {k.removeprefix(TRANSFORM): v for k, v in settings.items() if k.startswith(TRANSFORM)}
    return {**own, "name": settings["transform"]}
