"""A neighbour graph as a file of its own: built from embeddings, described, checked."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlp_plugins._files.writing import check_place
from dlp_plugins.embeddings.clock import Clock, Progress, silent
from dlp_plugins.embeddings.defaults import TRANSFORM, propagation_recipe, transform_of
from dlp_plugins.embeddings.features import open_embeddings
from dlp_plugins.environment import choose_device
from dlp_plugins.errors import DataError, UsageError
from dlp_plugins.graph import Graph, Neighbors, assemble
from dlp_plugins.graphs._list_file import Holds, Lists, read_lists, write_lists
from dlp_plugins.graphs.contract import recall
from dlp_plugins.propagation import Propagator
from dlp_plugins.recipe.build import build_propagator
from dlp_plugins.recipe.check import check_dependencies
from dlp_plugins.recipe.files import override_layer
from dlp_plugins.recipe.model import Recipe

SUFFIX = ".npz"
PARTS = ("transform", "graph")
HOLDS = "--holds "  # how `dlp graph` is told what a file's values are, for errors
SAMPLE = 300  # points whose lists are compared with the true ones
TOLERANCE = 5e-3  # of a cosine: half precision rounds to 5e-4, bfloat16 to 4e-3


@dataclass(frozen=True)
class GraphFacts:
    """What a file of neighbour lists holds.

    neighbors: least, mean and most of a point. cosines: quartiles over all links. isolated: points
    without a link in either direction. settings: how it was built, where the file tells it.
    """

    points: int
    links: int
    neighbors: tuple[int, float, int]
    cosines: tuple[float, float, float]
    components: int
    isolated: int
    settings: dict[str, Any]

    @classmethod
    def of(cls, lists: Lists) -> GraphFacts:
        counts = np.diff(lists.indptr)
        graph = _graph(lists)
        values = lists.values if len(lists.values) else np.zeros(1)
        low, middle, high = map(float, np.quantile(values, (0.25, 0.5, 0.75)))
        return cls(
            points=lists.num_points,
            links=len(lists.indices),
            neighbors=(int(counts.min()), float(counts.mean()), int(counts.max())),
            cosines=(low, middle, high),
            components=len(torch.unique(graph.components)),
            isolated=int((graph.degree == 0).sum()),
            settings=lists.settings,
        )


@dataclass(frozen=True)
class Comparison:
    """Lists of a sample of points beside the true ones.

    recall: the share of true neighbours that the file has. error: largest difference of a cosine.
    """

    points: int
    recall: float
    error: float


def build_graph_file(
    embeddings: Path | str,
    out: Path | str,
    *,
    settings: Iterable[str] = (),
    key: str | None = None,
    device: str = "auto",
    overwrite: bool = False,
    progress: Progress = silent,
) -> GraphFacts:
    """Find the neighbours of embeddings as `dlp propagate` would, and write them.

    Args:
        embeddings: as `propagate_file` takes them.
        out: .npz, in the layout of `scipy.sparse.save_npz`.
        settings: `key=value` of the parts `transform` and `graph`.

    Raises:
        UsageError: a setting, the device or the place of the file is wrong.
        DataError, FeatureError: the embeddings cannot be used.
        SaveError: the file cannot be written.
    """
    out = Path(out)
    check_place(out, (SUFFIX,), "the graph", overwrite, {"EMBEDDINGS": embeddings})
    settings = tuple(settings)
    _check_known(settings, PARTS)
    where = choose_device(device)
    source = open_embeddings(Path(embeddings), key)
    recipe = propagation_recipe(settings, source.points)
    check_dependencies(recipe, PARTS)
    propagator, clock = build_propagator(recipe), Clock(progress)
    with clock.phase("read", source.points) as tick:
        rows = source.load(tick).to(where)
    with clock.phase("transform"):
        f = propagator.apply_transform(rows)
    with clock.phase("neighbours"):
        found = propagator.find_neighbors(f)
    with clock.phase("write"):
        indices, similarities = (x.cpu().numpy() for x in (found.indices, found.similarities))
        lists = Lists.of_rows(indices, similarities, settings_of(recipe))
        write_lists(out, lists)
    return GraphFacts.of(lists)


def check_graph_file(
    file: Path | str,
    embeddings: Path | str,
    *,
    holds: Holds = "similarity",
    settings: Iterable[str] = (),
    key: str | None = None,
) -> Comparison:
    """Compare a file's lists of some points with an exact search among the embeddings.

    Args:
        holds: what the file's values are.
        settings: the transform that the lists were found with, if the file does not tell it.

    Raises:
        UsageError: a setting of anything but the transform.
        DataError: the file holds no lists, lists of other points, or other values.
    """
    settings = tuple(settings)
    _check_known(settings, ("transform",))
    lists = read_lists(Path(file), holds, HOLDS)
    source = open_embeddings(Path(embeddings), key)
    if lists.num_points != source.points:
        raise DataError(
            f"{file} has the neighbours of {lists.num_points:,} points; {embeddings} holds "
            f"{source.points:,}. Both must be of the same points."
        )
    propagator = _propagator(lists.settings, settings, source.points)
    f = propagator.apply_transform(source.load(lambda done: None))
    n = lists.num_points
    sample = np.sort(np.random.default_rng(0).choice(n, min(n, SAMPLE), replace=False))
    indices, values = lists.padded()
    found = Neighbors(*(torch.from_numpy(x[sample]) for x in (indices, values)))
    cosines = f[torch.from_numpy(sample)] @ f.T
    error = _largest_error(cosines, found)
    if error > TOLERANCE:
        raise DataError(
            f"{file}: its values differ from the cosines of {embeddings} by up to {error:.3f}. The "
            "points or their order are others, --holds is not what its values are, or it was built "
            "with another transform (--set transform=none)."
        )
    return Comparison(len(sample), recall(found, _true_neighbors(cosines, sample, indices)), error)


def _propagator(known: dict[str, Any], settings: Iterable[str], points: int) -> Propagator:
    own = transform_of(known) or {"name": "none"}
    return build_propagator(propagation_recipe(settings, points, transform=own))


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """How the lists of a recipe's graph were found: what their file keeps."""
    resolved = recipe.as_dict()
    transform = {f"{TRANSFORM}{k}": v for k, v in resolved["transform"].items() if k != "name"}
    names = {part: resolved[part]["name"] for part in PARTS}
    return names | transform | {"k": recipe.graph.params["k"]}


def _check_known(settings: Iterable[str], parts: Collection[str]) -> None:
    for key in override_layer(settings).data:
        if key not in parts:
            raise UsageError(
                f"--set {key}: does not concern the neighbours. Known here: {', '.join(parts)}."
            )


def _graph(lists: Lists) -> Graph:
    indices, values = lists.padded()
    return assemble(torch.from_numpy(indices), torch.from_numpy(values).clamp(min=0), False, None)


def _largest_error(cosines: Tensor, found: Neighbors) -> float:
    there = found.indices >= 0
    true = cosines.gather(1, found.indices.clamp(min=0).long())
    return float(((true - found.similarities).abs() * there).max()) if there.any() else 0.0


def _true_neighbors(cosines: Tensor, sample: np.ndarray, indices: np.ndarray) -> Neighbors:
    width = indices.shape[1]
    own = torch.from_numpy(sample)[:, None]
    best = cosines.scatter(1, own, -torch.inf).topk(min(width, cosines.shape[1] - 1), dim=1)
    return Neighbors(best.indices.int(), best.values)
