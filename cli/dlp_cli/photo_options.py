"""Arguments and options of commands that read photos."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class BadPhotos(StrEnum):
    stop = "stop"
    skip = "skip"


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
SplitOption = Annotated[str, typer.Option(metavar="NAME", help="Which part of a data set.")]
