"""`dlp propagate`: embeddings and a few labels in, a table of pseudo-labels out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlp_cli import options, output
from dlp_cli.display.phases import show_phases
from dlp_cli.options import Device, DeviceOption, PluginOption, SetOption

if TYPE_CHECKING:
    from dlp_plugins.embeddings.chunked import Outcome
    from dlp_plugins.embeddings.labels import Labels
    from dlp_plugins.recipe.model import Recipe

PHASES = {
    "read": "Reading features",
    "neighbours": "Finding neighbours",
    "graph": "Building the graph",
    "solve": "Spreading labels",
    "weigh": "Weighing",
    "write": "Writing the table",
}
PARTS = ("graph", "affinity", "solver", "normalizer", "weighter")
MOST_CLASSES = 10  # listed one by one


def propagate(
    features: Annotated[
        Path,
        typer.Argument(
            metavar="FEATURES", help="Embeddings: .npy, .npz, .parquet or .safetensors."
        ),
    ],
    labels: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Known labels, blank or -1 for none: .csv (a column, or index,label), .npy, .npz "
            "or .parquet.",
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="The table, a row a point: .csv or .parquet.")
    ],
    overrides: SetOption = None,
    scores: Annotated[
        bool, typer.Option("--scores", help="Add a column of probabilities for each class.")
    ] = False,
    classes: Annotated[
        int | None,
        typer.Option(min=1, help="Classes are 0 to N-1. By default, those that occur."),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Most memory to take, 4GB. By default 3/4 of what is free."
        ),
    ] = None,
    device: DeviceOption = Device.auto,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the table.")] = False,
    plugins: PluginOption = None,
) -> None:
    """Spread a few labels over the nearest-neighbour graph of embeddings."""
    from dlp_plugins.embeddings import chunked, table
    from dlp_plugins.embeddings.features import open_features
    from dlp_plugins.embeddings.labels import read_labels
    from dlp_plugins.embeddings.memory import Memory, choose_chunks
    from dlp_plugins.environment import free_memory
    from dlp_plugins.recipe.build import build_propagator
    from dlp_plugins.recipe.check import check_dependencies
    from dlp_plugins.training.run import build_accelerator
    from dlp_plugins.units import format_bytes, parse_bytes

    options.load_plugins(plugins)
    recipe = settings(overrides)
    check_dependencies(recipe)
    propagator = build_propagator(recipe)
    where = build_accelerator(device.value, "float32").device
    budget = parse_bytes(memory) if memory else 0.75 * free_memory(where)
    table.check_out(out, overwrite)
    source = open_features(features)
    known = read_labels(labels, source.points, classes)
    solver, k = propagator.solver, propagator.graph.k
    need = Memory.of(source.points, source.dim, k, solver, recipe.graph.name)
    chunks = choose_chunks(need, source.points, len(known.classes), budget, solver.columnwise)
    output.say(
        f"{source.points:,} points of {source.dim} numbers, {len(known.classes):,} classes: about "
        f"{format_bytes(chunks.peak)} of {format_bytes(budget)} memory, {chunks.width:,} classes "
        f"at a time{', scores in a scratch file' if chunks.on_disk else ''}."
    )
    with show_phases(PHASES) as report:
        outcome = chunked.propagate_chunked(
            propagator, source.load, known.index, len(known.classes), chunks,
            scratch=out.parent, device=where, progress=report,
        )  # fmt: skip
        with outcome.probabilities, outcome.clock.phase("write", source.points) as tick:
            table.write_table(out, outcome, known.classes, scores, tick)
    _print_summary(outcome, known, recipe)
    output.say(f"wrote {out}")


def settings(overrides: list[str] | None) -> Recipe:
    """The paper's components with what `--set` changes; other keys of a recipe are refused."""
    from dlp_plugins.errors import UsageError, did_you_mean
    from dlp_plugins.recipe.check import check_layers
    from dlp_plugins.recipe.files import override_layer

    layer = override_layer(overrides or ())
    for key in layer.data:
        if key not in PARTS:
            raise UsageError(
                f"--set {key}: unknown here.{did_you_mean(key, PARTS)} Known: {', '.join(PARTS)}."
            )
    return check_layers([layer])


def _print_summary(outcome: Outcome, known: Labels, recipe: Recipe) -> None:
    health, labeled = outcome.health, known.index >= 0
    total = len(labeled)
    quartiles = outcome.certainty_quartiles(known.index)
    rows = [
        ("points", f"{total:,}"),
        ("labelled", f"{int(labeled.sum()):,}"),
        ("classes", f"{len(known.classes):,}"),
        (
            "graph",
            f"{recipe.graph.name}: {outcome.edges:,} edges, {outcome.components:,} components",
        ),
        ("zero vectors", f"{outcome.zero_vectors:,}"),
        ("components without a label", f"{health.unlabeled_components:,}"),
        ("points no label reaches", f"{health.unreached:,}"),
        ("points not reached yet", f"{health.not_yet_reached:,}"),
        ("classes without a point", f"{health.empty_classes:,}"),
        ("solver", f"{recipe.solver.name}: {health.convergence.describe()}"),
        ("certainty, quartiles", ", ".join(f"{q:.3f}" for q in quartiles) or "-"),
        ("points a class", _counts(outcome, known)),
        ("seconds", ", ".join(f"{k} {v:.1f}" for k, v in outcome.clock.seconds.items())),
    ]
    output.print_table(("", "value"), rows)


def _counts(outcome: Outcome, known: Labels) -> str:
    counts = outcome.counts.tolist()
    if len(counts) <= MOST_CLASSES:
        return ", ".join(f"{c} {n:,}" for c, n in zip(known.classes, counts, strict=True))
    middle = sorted(counts)[len(counts) // 2]
    return f"from {min(counts):,} to {max(counts):,}, median {middle:,}"
