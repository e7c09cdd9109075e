"""`dlp propagate`: embeddings and a few labels in, a table of pseudo-labels out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlp_cli import options, output
from dlp_cli.display.multi_label import multi_label_rows
from dlp_cli.display.phases import show_phases
from dlp_cli.display.quality import quality_rows
from dlp_cli.options import (
    ClassesOption,
    Device,
    DeviceOption,
    EmbeddingsArgument,
    IdsOption,
    JsonOption,
    KeyOption,
    MemoryOption,
    OverwriteOption,
    PluginOption,
    ProbabilitiesOption,
    SetOption,
    TableOption,
)
from dlp_plugins.units import MOST_CLASSES, counted, counts_by_class

if TYPE_CHECKING:
    from dlp_plugins.embeddings.chunked import Outcome
    from dlp_plugins.embeddings.job import FilePropagation
    from dlp_plugins.propagation.class_shares import ClassShares
    from dlp_plugins.propagation.comparison import Comparison

PHASES = {
    "read": "Reading embeddings",
    "transform": "Rescaling embeddings",
    "cells": "Sorting into cells",
    "neighbours": "Finding neighbours",
    "graph": "Building the graph",
    "compare": "Comparing methods",
    "audit": "Leaving labels out",
    "solve": "Spreading labels",
    "refine": "Refining labels",
    "calibrate": "Finding probabilities",
    "weigh": "Weighing",
    "write": "Writing the table",
    "index": "Writing the index",
}


def propagate(
    embeddings: EmbeddingsArgument,
    out: TableOption,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Known labels, blank or -1 for none: .csv (a column per point, or index,label or "
            "id,label), .npy, .npz or .parquet. Needed unless there are prototypes.",
        ),
    ] = None,
    prototypes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="An embedding of each class, such as its name's by the same model: classes that "
            "are only named need no label. A row per class, as EMBEDDINGS.",
        ),
    ] = None,
    names: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Names of the prototypes, a line each (.txt, .csv)."),
    ] = None,
    graph: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Neighbour lists found before, .npz: by `dlp graph build`, or by another library "
            "(--set graph.holds=distance). In place of a search.",
        ),
    ] = None,
    overrides: SetOption = None,
    ids: IdsOption = None,
    key: KeyOption = None,
    probabilities: ProbabilitiesOption = False,
    classes: ClassesOption = None,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Start from a classifier's probabilities, with alpha 0.8: "
            "sklearn.linear_model.LogisticRegression (a wrong name lists the others).",
        ),
    ] = None,
    auto: Annotated[
        bool,
        typer.Option(
            "--auto", help="Compare with other methods first; take one that is clearly better."
        ),
    ] = False,
    class_shares: Annotated[
        str | None,
        typer.Option(
            metavar="RULE|FILE",
            help="Sizes of the classes among unlabelled points: equal, labels (as among them), "
            "estimate, or a file: .csv with columns label,share, or .npy.",
        ),
    ] = None,
    memory: MemoryOption = None,
    prior: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Scores of points and classes from elsewhere, a row per point: .npy, .npz or "
            ".parquet.",
        ),
    ] = None,
    prior_weight: Annotated[
        float,
        typer.Option(min=0, help="What the scores of a class count in all beside its labels."),
    ] = 1.0,
    multi_label: Annotated[
        bool,
        typer.Option(
            "--multi-label", help="A point may have several labels: each class by itself."
        ),
    ] = False,
    no_calibrate: Annotated[
        bool,
        typer.Option(
            "--no-calibrate",
            help="Leave out the probability that a label is right, found by cross-validation.",
        ),
    ] = False,
    unknown: Annotated[
        bool,
        typer.Option("--unknown", help="Add a column: how likely a point has no known class."),
    ] = False,
    truth: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="True labels, as --labels, to measure the result by."),
    ] = None,
    device: DeviceOption = Device.auto,
    overwrite: OverwriteOption = False,
    robust: Annotated[
        bool,
        typer.Option("--robust", help="Labels that all others contradict count less."),
    ] = False,
    save_index: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Also write what `dlp assign` labels new points by: .safetensors."
        ),
    ] = None,
    on_disk: Annotated[
        bool,
        typer.Option(
            "--on-disk",
            help="Large arrays go to files in a folder beside the table, as they do by themselves "
            "where memory is short. With graph cells.",
        ),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with the work that an interrupted command left in that folder."
        ),
    ] = False,
    shard_rows: Annotated[
        bool,
        typer.Option(
            "--shard-rows",
            help="Under torchrun: the processes share the rows of the graph, so that none holds it "
            "whole. Graph cells, solver chebyshev, no refiner; EMBEDDINGS in a .npy file.",
        ),
    ] = False,
    plugins: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Spread a few labels over the nearest-neighbour graph of embeddings."""
    from dlp_cli.display.propagation_json import to_json
    from dlp_plugins.embeddings.multi_label import MultiOutcome
    from dlp_plugins.embeddings.options import Options
    from dlp_plugins.embeddings.run import prepare

    options.load_plugins(plugins)
    from_file = [] if graph is None else ["graph=file", f"graph.path={graph}"]
    if graph is not None:
        _check_graph_once(graph, overrides or [])
    asked = Options(
        embeddings, labels, out, settings=from_file + (overrides or []), ids=ids, key=key,
        classes=classes, class_shares=class_shares, probabilities=probabilities, memory=memory,
        device=device.value, overwrite=overwrite, save_index=save_index,
        prototypes=prototypes, names=names, start=start, auto=auto, robust=robust,
        prior=prior, prior_weight=prior_weight, calibrated=not no_calibrate, unknown=unknown,
        truth=truth, multi_label=multi_label, on_disk=on_disk, resume=resume,
        shard_rows=shard_rows,
    )  # fmt: skip
    job = prepare(asked)
    if not as_json:
        _announce(job)
    with show_phases(PHASES) as progress:
        outcome = job.run_multi_label(progress) if multi_label else job.run(progress)
    if as_json:
        output.print_json(to_json(job, outcome))
    elif isinstance(outcome, MultiOutcome):
        output.print_table(("", "value"), multi_label_rows(job, outcome))
        output.say(f"wrote {out}")
    else:
        _show(job, outcome)


def _check_graph_once(graph: Path, settings: list[str]) -> None:
    """Raise UsageError where the settings say, too, where the neighbours come from."""
    from dlp_plugins.errors import UsageError
    from dlp_plugins.recipe.files import override_layer

    asked = override_layer(settings).data.get("graph", {})
    table = asked if isinstance(asked, dict) else {"name": asked}
    if table.get("name", "file") != "file" or "path" in table:
        raise UsageError(
            f"--graph {graph} is in place of a search, and --set graph=... asks for another graph: "
            "leave one out."
        )


def _announce(job: FilePropagation) -> None:
    from dlp_plugins.embeddings.work import work_folder
    from dlp_plugins.units import format_bytes

    source, chunks = job.source, job.chunks
    output.say(
        f"{source.points:,} points of {source.dim} numbers, {len(job.given.classes):,} classes: "
        f"about {format_bytes(chunks.peak)} of {format_bytes(job.budget)} memory, "
        f"{chunks.width:,} classes at a time{', scores in a scratch file' * chunks.on_disk}."
    )
    if job.work is not None and job.out is not None:
        output.say(
            f"Large arrays go to files in {work_folder(job.out)}; if this is interrupted, go on "
            "with --resume."
        )


def _show(job: FilePropagation, outcome: Outcome) -> None:
    output.print_table(("", "value"), _summary(job, outcome))
    if outcome.comparison is not None:
        _show_comparison(outcome.comparison)
    for note in _notes(job, outcome):
        output.say(note)
    output.say(f"wrote {job.out}" + (f" and {job.index}" if job.index else ""))


def _summary(job: FilePropagation, outcome: Outcome) -> list[tuple[str, str]]:
    health, given, recipe = outcome.health, job.given, job.recipe
    quartiles = outcome.certainty_quartiles(given.labels)
    unreached = f"{health.unreached:,}"
    if health.unreached and bool((outcome.labels[~outcome.reached] >= 0).any()):
        unreached += ", labelled by the refiner alone"
    how = outcome.calibration
    probability = [] if how is None else [("probability", how.describe())]
    not_yet = []
    if late := health.not_yet_reached:
        more = f"{late:,}; raise solver.max_iterations"
        not_yet.append(("points where the solver stopped before a label", more))
    halo = outcome.halo
    shared = [] if halo is None else [("neighbours in other processes", f"{halo:,} at most")]
    return [
        ("points", f"{len(given.labels):,}"),
        ("labelled", f"{int((given.labels >= 0).sum()):,}"),
        ("classes", f"{len(given.classes):,}"),
        (
            "graph",
            f"{recipe.graph.name}: {counted(outcome.edges, 'edge')}, "
            f"{counted(outcome.components, 'component')}",
        ),
        *shared,
        ("zero vectors", f"{outcome.zero_vectors:,}"),
        ("same as an earlier point", f"{outcome.duplicates:,}"),
        ("components without a label", f"{health.unlabeled_components:,}"),
        ("points no label reaches", unreached),
        *not_yet,
        ("classes without a point", f"{health.empty_classes:,}"),
        ("solver", f"{recipe.solver.name}: {health.convergence.describe()}"),
        ("certainty, quartiles", ", ".join(f"{q:.3f}" for q in quartiles) or "-"),
        *probability,
        *quality_rows(job.quality(outcome)),
        ("points per class", counts_by_class(outcome.counts.tolist(), given.classes)),
        ("class shares", _shares(job.propagator.class_shares, outcome, given.classes)),
        ("seconds", ", ".join(f"{k} {v:.1f}" for k, v in outcome.clock.seconds.items())),
    ]


def _show_comparison(comparison: Comparison) -> None:
    def percent(value: float, error: float, sign: str = "") -> str:
        return f"{100 * value:{sign}.1f} ± {100 * error:.1f}"

    if comparison.rows:
        rows = [
            (row.name, percent(row.accuracy, row.error), percent(row.gain, row.gain_error, "+"))
            for row in comparison.rows
        ]
        rows[0] = (*rows[0][:2], "")
        output.print_table(("method", "accuracy, %", "above the default"), rows)
        output.say(
            f"Cross-validation on {comparison.judged:,} labels, {comparison.repeats} times; ± is "
            "one standard error."
        )
    output.say(comparison.describe())


def _notes(job: FilePropagation, outcome: Outcome) -> list[str]:
    """Sentences on what the user may not expect."""
    from dlp_plugins.graphs._list_file import most_neighbors

    notes = [] if outcome.note is None else [outcome.note]
    own, given = job.recipe.graph.params, list(job.options.settings)
    chosen = options.without_key("graph.k", given) != given
    from_file = job.recipe.graph.name == "file" and not chosen
    if from_file and (most := most_neighbors(Path(own["path"]))) > own["k"]:
        notes.append(
            f"{own['path']} holds up to {most:,} neighbours of a point, of which the nearest "
            f"{own['k']:,} count; --set graph.k={most} takes all."
        )
    if bool((job.given.labels >= 0).all()):
        notes.append(
            f"Every point has a label, so there was nothing to spread. Is {job.options.labels} the "
            "file of the labels that are given?"
        )
    equal = job.propagator.class_shares == "equal"
    share = "an equal" if equal else "its"
    advice = " If it is, say so with --class-shares." if equal else ""
    for j, times in outcome.crowded_classes(job.given.labels).items():
        notes.append(
            f"Class {job.given.classes[j]} takes {times:.1f} times {share} share of the unlabelled"
            " points. Unless it really is that frequent, look at its labels, or give it fewer and "
            f"the other classes more.{advice}"
        )
    return notes


def _shares(rule: ClassShares, outcome: Outcome, classes: list[str] | list[int]) -> str:
    """Shares of the classes among unlabelled points, and where they come from."""
    if rule == "equal":
        return "equal"
    shares = outcome.class_shares.tolist()
    source = rule if isinstance(rule, str) else "given"
    if len(shares) <= MOST_CLASSES:
        return f"{source}: " + ", ".join(
            f"{c} {s:.3f}" for c, s in zip(classes, shares, strict=True)
        )
    return f"{source}: from {min(shares):.4f} to {max(shares):.4f}"
