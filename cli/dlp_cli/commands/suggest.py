"""`dlp suggest`: embeddings in, the points whose labels would help most out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlp_cli import complete, options, output
from dlp_cli.display.phases import show_phases
from dlp_cli.options import (
    Device,
    DeviceOption,
    EmbeddingsArgument,
    JsonOption,
    KeyOption,
    MemoryOption,
    PluginOption,
    SetOption,
)

PHASES = {
    "read": "Reading embeddings",
    "transform": "Rescaling embeddings",
    "neighbours": "Finding neighbours",
    "graph": "Building the graph",
    "solve": "Spreading labels",
    "select": "Choosing points",
    "write": "Writing the table",
}


def suggest(
    embeddings: EmbeddingsArgument,
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="The table, a row per chosen point, best first: .csv or .parquet."
        ),
    ],
    count: Annotated[int, typer.Option(min=1, metavar="N", help="Points to choose.")] = 50,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Labels that are known already, as for `dlp propagate`, if any."
        ),
    ] = None,
    selector: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Who chooses: see `dlp list selectors`.",
            autocompletion=complete.selectors,
        ),
    ] = None,
    overrides: SetOption = None,
    ids: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Ids of the points, as `dlp propagate`.")
    ] = None,
    key: KeyOption = None,
    memory: MemoryOption = None,
    device: DeviceOption = Device.auto,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the table.")] = False,
    plugins: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Choose the points to label next, from no label at all or from some."""
    from dlp_plugins.embeddings.suggest import prepare_suggestion

    options.load_plugins(plugins)
    job = prepare_suggestion(
        embeddings, out, count=count, labels=labels, selector=selector, settings=overrides or (),
        ids=ids, key=key, memory=memory, device=device.value, overwrite=overwrite,
    )  # fmt: skip
    with show_phases(PHASES) as progress:
        chosen, clock = job.run(progress)
    labeled = int((job.labels >= 0).sum())
    if as_json:
        named = [] if job.ids is None else job.ids.values
        output.print_json(
            {
                "points": job.source.points,
                "labeled": labeled,
                "chosen": [
                    {"index": i} | ({"id": named[i]} if named else {}) for i in chosen.tolist()
                ],
                "seconds": clock.seconds,
                "table": str(out),
            }
        )
        return
    seconds = ", ".join(f"{phase} {s:.1f}" for phase, s in clock.seconds.items())
    output.say(
        f"{len(chosen):,} of {job.source.points:,} points, {labeled:,} labelled before; "
        f"seconds: {seconds}"
    )
    output.say(f"wrote {out}")
