"""`dlp check`: is a recipe valid, and what does it come to?"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from dlp_cli import options, output
from dlp_cli.options import JsonOption, PluginOption, RecipeArgument, SetOption

if TYPE_CHECKING:
    from dlp_plugins.recipe.model import Recipe
    from dlp_plugins.training.check_data import Checked


def check(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    plugins: PluginOption = None,
    data: Annotated[
        bool, typer.Option("--data", help="Read every image, too, and name those that fail.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check a recipe without training; print every setting, in the form that --set takes."""
    checked = options.load(recipe, overrides, plugins)

    from dlp_cli.settings import toml_text
    from dlp_plugins.recipe.check import check_dependencies
    from dlp_plugins.training.folder import flatten

    settings = flatten(checked.as_dict())
    if as_json:
        check_dependencies(checked)
        found = {"data": asdict(_read_data(checked))} if data else {}
        output.print_json({"recipe": recipe, "settings": settings, **found})
        return
    for key, value in settings.items():
        output.say(f"{key} = {toml_text(value)}")
    check_dependencies(checked)
    if data:
        _show_data(_read_data(checked))
    output.say(f"OK: {recipe} is valid.", style="green")


def _read_data(recipe: Recipe) -> Checked:
    with output.waiting("reading every image"):
        from dlp_plugins.training.check_data import check_data

        return check_data(recipe)


def _show_data(found: Checked) -> None:
    from dlp_plugins.datasets.contract import list_unreadable

    total = found.train + found.test
    if found.unreadable:
        output.show_warning(f"A run leaves out: {list_unreadable(found.unreadable, total)}")
    output.say(
        f"data: {found.train:,} training images of {found.classes:,} classes, {found.known:,} with "
        f"a label, of which {found.labeled:,} are used and {found.validation:,} validate; "
        f"{found.test:,} test images; {len(found.unreadable):,} cannot be read"
    )
