"""`dlp cp`: a recipe as a file of one's own."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from dlp_cli import output
from dlp_cli.options import RecipeArgument


def cp(
    recipe: RecipeArgument,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="The copy: a .toml file, or a folder for it.")
    ],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Copy a recipe to a file of your own, to change it."""
    from dlp_plugins.recipe.copying import copy_recipe

    copy = copy_recipe(recipe, file, overwrite)
    output.say(f"wrote {copy}")
    output.say(f"Its settings: dlp check {shlex.quote(str(copy))}")
