"""`dlp assign`: labels of new points by an index, without a propagation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlp_cli import options, output
from dlp_cli.display.phases import show_phases
from dlp_cli.options import (
    IdsOption,
    KeyOption,
    OverwriteOption,
    PluginOption,
    ProbabilitiesOption,
    TableOption,
)

PHASES = {
    "read": "Reading embeddings",
    "assign": "Labelling",
    "write": "Writing the table",
}


def assign(
    index: Annotated[
        Path, typer.Argument(metavar="INDEX", help="What `dlp propagate --save-index` wrote.")
    ],
    embeddings: Annotated[
        Path,
        typer.Argument(
            metavar="NEW",
            help="A row per new point, by the same network: .npy, .npz, .parquet or .safetensors.",
        ),
    ],
    out: TableOption,
    ids: IdsOption = None,
    key: KeyOption = None,
    probabilities: ProbabilitiesOption = False,
    overwrite: OverwriteOption = False,
    plugins: PluginOption = None,
) -> None:
    """Label new points as an earlier propagation would have, without repeating it."""
    from dlp_plugins.embeddings.assign import prepare

    options.load_plugins(plugins)
    job = prepare(
        index, embeddings, out, ids=ids, key=key, probabilities=probabilities, overwrite=overwrite
    )
    output.say(
        f"{job.source.points:,} new points of {job.source.dim} numbers, beside "
        f"{len(job.index.points):,} old ones of {len(job.index.classes):,} classes."
    )
    with show_phases(PHASES) as progress:
        found = job.run(progress)
    if unreached := int((~found.reached).sum()):
        output.say(
            f"{unreached:,} have no neighbour that a label reaches: certainty 0, "
            f"{'labelled by the refiner alone' if bool((found.labels >= 0).all()) else 'no label'}."
        )
    output.say(f"wrote {out}")
