"""`dlp predict`: photos in, class names out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlp_cli import output
from dlp_cli.display.phases import show_phases
from dlp_cli.options import Device, DeviceOption, OverwriteOption, PluginOption
from dlp_cli.photo_options import (
    BadOption,
    BadPhotos,
    ColumnOption,
    ModelArgument,
    Network,
    NetworkOption,
    PhotosArgument,
    SplitOption,
    Weights,
    WeightsOption,
)


def predict(
    model: ModelArgument,
    images: PhotosArgument,
    out: Annotated[
        Path,
        typer.Option(metavar="FILE", help="The table file, label, probability: .csv or .parquet."),
    ],
    nearest: Annotated[
        int,
        typer.Option(min=0, help="Add so many of the most similar labelled examples (of a run)."),
    ] = 0,
    bad: BadOption = BadPhotos.stop,
    network: NetworkOption = Network.student,
    weights: WeightsOption = Weights.last,
    column: ColumnOption = None,
    split: SplitOption = "train",
    device: DeviceOption = Device.auto,
    overwrite: OverwriteOption = False,
    plugins: PluginOption = None,
) -> None:
    """Classify photos by what was trained, or by an index of labelled photos."""
    with output.waiting("loading PyTorch"):
        from dlp_plugins.photos import predict as predicting
        from dlp_plugins.photos.source import open_photos
        from dlp_plugins.units import counted

        predicting.check_table(out, overwrite, model, images)
        photos = open_photos(images, column, split)
        predictor = predicting.open_predictor(
            model, network=network.value, weights=weights.value, device=device.value,
            plugins=plugins or (),
        )  # fmt: skip
    total = len(photos)
    with show_phases({"predict": "Classifying photos"}) as report:
        found = predicting.predict(
            predictor, photos, out, nearest=nearest, bad=bad.value, overwrite=overwrite,
            progress=lambda done: report("predict", done, total),
        )  # fmt: skip
    counts = {str(name): int((found.labels == j).sum()) for j, name in enumerate(found.classes)}
    most = sorted(counts.items(), key=lambda pair: -pair[1])[:10]
    listed = ", ".join(f"{name} {n:,}" for name, n in most)
    output.say(f"{counted(len(found.files), 'photo')}: {listed}{', ...' * (len(counts) > 10)}")
    output.say(f"wrote {out}")
