"""Arguments and options of commands that read photos."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class BadPhotos(StrEnum):
    stop = "stop"
    skip = "skip"


class Weights(StrEnum):
    last = "last"
    best = "best"


class Network(StrEnum):
    student = "student"
    teacher = "teacher"


PhotosArgument = Annotated[
    str,
    typer.Argument(
        metavar="IMAGES",
        help="A folder, a list of files (.txt, .csv), Parquet files, or hf:NAME of the hub.",
    ),
]
BadOption = Annotated[BadPhotos, typer.Option(help="What to do about images that cannot be read.")]
ColumnOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Column of the images in a table.")
]
ModelArgument = Annotated[
    Path,
    typer.Argument(
        metavar="RUN|INDEX", help="The folder of a run, or what `dlp propagate --save-index` wrote."
    ),
]
WeightsOption = Annotated[
    Weights, typer.Option(help="Of a run: of its last epoch, or the best by validation.")
]
NetworkOption = Annotated[Network, typer.Option(help="Which network of a run.")]
SplitOption = Annotated[str, typer.Option(metavar="NAME", help="Which part of a data set.")]
