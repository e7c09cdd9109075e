"""`dlp embed`: photos in, embeddings out."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dlp_cli import options, output
from dlp_cli.display.phases import show_phases
from dlp_cli.options import Device, DeviceOption, OverwriteOption, PluginOption
from dlp_cli.photo_options import (
    BadOption,
    BadPhotos,
    ColumnOption,
    Network,
    NetworkOption,
    PhotosArgument,
    SplitOption,
)


class Precision(StrEnum):
    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


def embed(
    images: PhotosArgument,
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="The embeddings, .npy; the names go to FILE's stem.ids.csv."
        ),
    ],
    backbone: Annotated[
        str,
        typer.Option(
            metavar="NAME|RUN",
            help="imagenet-lite, timm:NAME (weights are downloaded), or the folder of a run.",
        ),
    ] = "imagenet-lite",
    size: Annotated[
        int | None,
        typer.Option(metavar="PIXELS", help="Side of the images; by default the backbone's own."),
    ] = None,
    flips: Annotated[
        bool, typer.Option("--flips", help="Average with the mirror image: twice the time.")
    ] = False,
    float16: Annotated[
        bool, typer.Option("--float16", help="Write 2 bytes per number instead of 4.")
    ] = False,
    bad: BadOption = BadPhotos.stop,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Weights of a timm model, instead of a download."),
    ] = None,
    network: NetworkOption = Network.student,
    precision: Annotated[
        Precision, typer.Option(help="auto: float32 for a run's network, else bfloat16.")
    ] = Precision.auto,
    column: ColumnOption = None,
    split: SplitOption = "train",
    device: DeviceOption = Device.auto,
    shard: Annotated[
        str,
        typer.Option(
            metavar="I/N",
            help="Describe the I-th of N parts alone, for several machines; then once without it.",
        ),
    ] = "",
    overwrite: OverwriteOption = False,
    plugins: PluginOption = None,
) -> None:
    """Describe photos by a trained network: a row of numbers for each, for `dlp propagate`.

    Run the same command again after a crash or Ctrl-C: it continues where it was.
    """
    with output.waiting("loading PyTorch"):
        from dlp_plugins.embeddings.ids import beside
        from dlp_plugins.photos.embed import embed as embed_photos
        from dlp_plugins.photos.embed import share_of
        from dlp_plugins.photos.source import open_photos
        from dlp_plugins.units import counted, format_seconds

        options.load_plugins(plugins)
        photos = open_photos(images, column, split)
    total = share_of(photos, shard, device.value)
    with show_phases({"embed": "Embedding photos"}) as report:
        made = embed_photos(
            photos, out, backbone, size=size, flips=flips, float16=float16, bad=bad.value,
            precision=precision.value, weights_file=weights, network=network.value,
            device=device.value, overwrite=overwrite, shard=shard,
            progress=lambda done: report("embed", done, total),
        )  # fmt: skip
    speed = made.described / max(made.seconds, 1e-9)
    again = f" ({made.resumed:,} were done before)" if made.resumed else ""
    output.say(
        f"{counted(made.points, 'photo')} as {made.dim} numbers each by {backbone}, in "
        f"{format_seconds(made.seconds)}, {speed:.0f} photos/s{again}."
    )
    output.say(f"wrote {made.out}, and the photos' names to {beside(made.out)}")
    if shard:
        output.say("When all parts are there, the same command without --shard puts them together.")
        return
    output.say("Next: write file,label of a few photos to labels.csv, then")
    output.say(f"  dlp propagate {shlex.quote(str(out))} --labels labels.csv --out labelled.csv")
