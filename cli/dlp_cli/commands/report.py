"""`dlp report`: one HTML page about runs, bench results, or a table of labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlp_cli import options, output
from dlp_cli.options import Device, DeviceOption, KeyOption, OverwriteOption, PluginOption


def report(
    targets: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...|BENCH|TABLE",
            help="Folders of runs; or the folder of a `dlp bench`; or a table of `dlp propagate`.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page, .html.")] = Path(
        "report.html"
    ),
    embeddings: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Of a table: its embeddings, for map and audit."),
    ] = None,
    key: KeyOption = None,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Of a table: the images. Ids are paths below it, as `dlp label`."
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Of a table: the labels that were given."),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Of a table: true labels, to measure accuracy by."),
    ] = None,
    png: Annotated[
        bool, typer.Option("--png", help="Write the figures as PNG too, into FILE_figures/.")
    ] = False,
    device: DeviceOption = Device.auto,
    overwrite: OverwriteOption = False,
    plugins: PluginOption = None,
) -> None:
    """Write a page with figures: errors, certainty, confusion, images, doubtful labels, a map."""
    with output.waiting("drawing figures"):
        from dlp_plugins.report.run import TableFiles, write_report

        options.load_plugins(plugins)
        written = write_report(
            targets, out, files=TableFiles(embeddings, key, images, labels, truth), png=png,
            device=device.value, overwrite=overwrite,
        )  # fmt: skip
    for path in written:
        output.say(f"wrote {path}")
