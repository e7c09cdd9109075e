"""`dlp graph`: a neighbour graph as a file, built once and used by many commands."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlp_cli import options, output
from dlp_cli.display.phases import show_phases
from dlp_cli.options import (
    Device,
    DeviceOption,
    EmbeddingsArgument,
    KeyOption,
    OverwriteOption,
    PluginOption,
    SetOption,
)

if TYPE_CHECKING:
    from dlp_plugins.embeddings.graph_file import GraphFacts

PHASES = {
    "read": "Reading embeddings",
    "transform": "Rescaling embeddings",
    "neighbours": "Finding neighbours",
    "write": "Writing the graph",
}


class Holds(StrEnum):
    similarity = "similarity"
    cosine_distance = "cosine_distance"
    distance = "distance"


FileArgument = Annotated[
    Path, typer.Argument(metavar="GRAPH", help=".npz of neighbour lists.", show_default=False)
]
HoldsOption = Annotated[
    Holds, typer.Option(help="What its values are; distance: Euclidean, of unit vectors.")
]

graph = typer.Typer(
    no_args_is_help=True, help="The neighbour graph as a file: build it once, use it often."
)


@graph.command("build")
def build(
    embeddings: EmbeddingsArgument,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The graph, .npz.")],
    overrides: SetOption = None,
    key: KeyOption = None,
    device: DeviceOption = Device.auto,
    overwrite: OverwriteOption = False,
    plugins: PluginOption = None,
) -> None:
    """Find the neighbours of embeddings, as `dlp propagate` would, and write them."""
    from dlp_plugins.embeddings.graph_file import build_graph_file

    options.load_plugins(plugins)
    with show_phases(PHASES) as progress:
        facts = build_graph_file(
            embeddings, out, settings=overrides or (), key=key, device=device.value,
            overwrite=overwrite, progress=progress,
        )  # fmt: skip
    _show(facts)
    output.say(f"wrote {out}")


@graph.command("info")
def info(file: FileArgument, holds: HoldsOption = Holds.similarity) -> None:
    """What a file of neighbour lists holds."""
    from dlp_plugins.embeddings.graph_file import HOLDS, GraphFacts
    from dlp_plugins.graphs._list_file import read_lists

    _show(GraphFacts.of(read_lists(file, holds.value, HOLDS)))


@graph.command("check")
def check(
    file: FileArgument,
    embeddings: EmbeddingsArgument,
    holds: HoldsOption = Holds.similarity,
    overrides: SetOption = None,
    key: KeyOption = None,
    plugins: PluginOption = None,
) -> None:
    """Compare a file's lists with an exact search for some of the embeddings."""
    from dlp_plugins.embeddings.graph_file import check_graph_file

    options.load_plugins(plugins)
    found = check_graph_file(file, embeddings, holds=holds.value, settings=overrides or (), key=key)
    output.say(
        f"{file}: of {found.points:,} points it has {found.recall:.1%} of the true neighbours; "
        f"cosines differ by at most {found.error:.1e}."
    )


def _show(facts: GraphFacts) -> None:
    least, mean, most = facts.neighbors
    rows = [
        ("points", f"{facts.points:,}"),
        ("links", f"{facts.links:,}"),
        ("neighbours of a point", f"{least:,} to {most:,}, {mean:.1f} on average"),
        ("cosines, quartiles", " ".join(f"{q:.3f}" for q in facts.cosines)),
        ("components", f"{facts.components:,}"),
        ("points without a link", f"{facts.isolated:,}"),
    ]
    rows += [(name, str(value)) for name, value in facts.settings.items()]
    output.print_table(("", "value"), rows)
