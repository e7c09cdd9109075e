"""Arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dlp_plugins.recipe.model import Recipe


class Device(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe's path, or its name (see `dlp list`).")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a setting, solver.alpha=0.9, or a whole component, solver=power. Repeatable.",
    ),
]
PluginOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin", metavar="FILE", help="Python file that registers components. Repeatable."
    ),
]


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
DeviceOption = Annotated[Device, typer.Option(help="auto: a GPU where there is one.")]


def load_plugins(files: Iterable[Path] | None) -> None:
    """Import the files given with --plugin, so that their components are registered."""
    from dlp_plugins.registry import load_plugin_file

    for file in files or ():
        load_plugin_file(file)


def load(recipe: str, overrides: list[str] | None, plugins: list[Path] | None) -> Recipe:
    """The user's plug-ins first, then the recipe that may name what they register."""
    from dlp_plugins.recipe.check import load_recipe

    load_plugins(plugins)
    return load_recipe(recipe, overrides or ())
