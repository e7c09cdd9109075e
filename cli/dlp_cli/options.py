"""Arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlp_cli import complete

if TYPE_CHECKING:
    from dlp_plugins.recipe.model import Recipe


class Device(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="A recipe's path, or its name (see `dlp list`).",
        autocompletion=complete.recipes,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a setting, solver.alpha=0.9, or a whole component, solver=power. Repeatable.",
        autocompletion=complete.settings,
    ),
]
PluginOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin", metavar="FILE", help="Python file that registers components. Repeatable."
    ),
]

EmbeddingsArgument = Annotated[
    Path,
    typer.Argument(
        metavar="EMBEDDINGS", help="A row per point: .npy, .npz, .parquet or .safetensors."
    ),
]
LabelsOption = Annotated[
    Path,
    typer.Option(
        metavar="FILE",
        help="Known labels, blank or -1 for none: .csv (a column per point, or index,label or "
        "id,label), .npy, .npz or .parquet.",
    ),
]
# Of commands that read embeddings and write a table of their points
TableOption = Annotated[
    Path,
    typer.Option("--out", metavar="FILE", help="The table, a row per point: .csv or .parquet."),
]
IdsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Ids of the points, a row each: .txt, .csv, .npy, .npz or .parquet. By default "
        "the column or array `id` of the embeddings, if there is one.",
    ),
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Array, tensor or column of the embeddings, if there are several."
    ),
]
ClassesOption = Annotated[
    int | None, typer.Option(min=1, help="Classes are 0 to N-1. By default, those that occur.")
]
MemoryOption = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Memory to use at most, 4GB. By default 3/4 of the free."),
]
ProbabilitiesOption = Annotated[
    bool, typer.Option("--probabilities", help="Add a column of probabilities for each class.")
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace files that exist already.")
]

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document in place of text (docs/json.md).")
]

DeviceOption = Annotated[Device, typer.Option(help="auto: a GPU where there is one.")]


def without_key(key: str, settings: Iterable[str]) -> list[str]:
    """Settings as --set takes them, less those of a key and of what is below it."""
    named = ((text.partition("=")[0].strip(), text) for text in settings)
    return [text for name, text in named if name != key and not name.startswith(f"{key}.")]


def run_words(
    recipe: str, settings: Iterable[str], device: Device, plugins: Sequence[Path] | None
) -> list[str]:
    """The words after `dlp` of a command that trains the recipe, as the options here were given."""
    words = ["run", recipe]
    for setting in settings:
        words += ["--set", setting]
    if device is not Device.auto:
        words += ["--device", device.value]
    for file in plugins or ():
        words += ["--plugin", str(file)]
    return words


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
