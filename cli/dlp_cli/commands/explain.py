"""`dlp explain`: which labelled points make a point's label, and how they reach it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlp_cli import options, output
from dlp_cli.display.phases import show_phases
from dlp_cli.options import (
    ClassesOption,
    Device,
    DeviceOption,
    EmbeddingsArgument,
    IdsOption,
    JsonOption,
    KeyOption,
    LabelsOption,
    MemoryOption,
    PluginOption,
    SetOption,
)

if TYPE_CHECKING:
    from dlp_plugins.embeddings.explain import Explanation
    from dlp_plugins.embeddings.labels import LabelFile

PHASES = {
    "read": "Reading embeddings",
    "transform": "Rescaling embeddings",
    "neighbours": "Finding neighbours",
    "graph": "Building the graph",
    "solve": "Spreading labels",
}
SHOWN = 10  # labelled points
CLASSES = 3


def explain(
    embeddings: EmbeddingsArgument,
    labels: LabelsOption,
    point: Annotated[
        str,
        typer.Option(metavar="I", help="The point: its id if points have ids, or row from 0."),
    ],
    as_json: JsonOption = False,
    overrides: SetOption = None,
    ids: IdsOption = None,
    key: KeyOption = None,
    classes: ClassesOption = None,
    memory: MemoryOption = None,
    device: DeviceOption = Device.auto,
    plugins: PluginOption = None,
) -> None:
    """Show which labelled points make a point's label, with their shares and paths."""
    from dlp_plugins.embeddings.explain import explain_file

    options.load_plugins(plugins)
    with show_phases(PHASES) as progress:
        found, given = explain_file(
            embeddings, labels, point, settings=overrides or (), ids=ids, key=key, classes=classes,
            memory=memory, device=device.value, progress=progress,
        )  # fmt: skip
    if as_json:
        output.print_json(to_json(found, given))
    else:
        _show(found, given)


def to_json(found: Explanation, given: LabelFile) -> dict[str, Any]:
    """All of an explanation, with classes and points as the files name them."""

    def name(label: int | None) -> str | int | None:
        return None if label is None or label < 0 else given.classes[label]

    def about(row: int) -> dict[str, Any]:
        return {"index": row} | ({"id": given.ids.values[row]} if given.ids else {})

    def probabilities(p: Any) -> list[dict[str, Any]] | None:
        if p is None:
            return None
        order = [int(j) for j in (-p).argsort(kind="stable") if p[j] > 0]
        return [{"label": name(j), "probability": float(p[j])} for j in order]

    paths = dict(enumerate(found.paths))
    return about(found.point) | {
        "label": name(found.label),
        "given": name(found.given),
        "graph": {
            "label": name(found.graph_label),
            "score": found.shares.score,
            "probabilities": probabilities(found.graph_probabilities),
            "shares": [
                about(int(row)) | {"share": float(share), "path": paths.get(i)}
                for i, (row, share) in enumerate(
                    zip(found.shares.nodes, found.shares.shares, strict=True)
                )
            ],
        },
        "refined": None
        if found.refined_label is None
        else {
            "label": name(found.refined_label),
            "probabilities": probabilities(found.refined_probabilities),
            "nearest_centers": [
                {"label": name(j), "distance": distance} for j, distance in found.centers
            ],
        },
    }


def _show(found: Explanation, given: LabelFile) -> None:
    def called(row: int) -> str:
        return str(given.ids.values[row]) if given.ids else str(row)

    def best(p: Any) -> str:
        order = [int(j) for j in (-p).argsort(kind="stable")[:CLASSES] if p[j] > 0]
        return ", ".join(f"{given.classes[j]} {p[j]:.1%}" for j in order)

    def label(j: int) -> str:
        return str(given.classes[j]) if j >= 0 else "no label"

    own = ", its own" if found.given >= 0 else ""
    output.say(f"Point {called(found.point)} (row {found.point:,}): {label(found.label)}{own}")
    if found.graph_label < 0:
        output.say("Over the graph no label reaches it.")
    else:
        output.say(f"Over the graph: {best(found.graph_probabilities)}")
        _shares(found, called, label(found.graph_label))
    if found.refined_label is None or found.refined_probabilities is None:
        return
    output.say(f"Refined: {best(found.refined_probabilities)}")
    if found.refined_label != found.graph_label:
        nearest = ", ".join(f"{given.classes[j]} at {d:.3f}" for j, d in found.centers)
        output.say(
            f"The refined label is {label(found.refined_label)} and not "
            f"{label(found.graph_label)}: the refiner also compares the embedding with the "
            f"classes themselves. The nearest class centres: {nearest}."
        )


def _shares(found: Explanation, called: Any, label: str) -> None:
    rows = []
    for i, (row, share) in enumerate(zip(found.shares.nodes, found.shares.shares, strict=True)):
        if i == SHOWN:
            break
        path = found.paths[i] if i < len(found.paths) else []
        rows.append((called(int(row)), f"{share:.1%}", " - ".join(map(called, path)) or ""))
    output.say(f"Labelled points that make its score of {label}:")
    output.print_table(("point", "share", "strongest path"), rows)
    if len(found.shares.nodes) > SHOWN:
        rest = found.shares.shares[SHOWN:].sum()
        output.say(f"and {len(found.shares.nodes) - SHOWN:,} more, with {rest:.1%} together")
