"""`dlp list`: which components and recipes there are."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from dlp_cli import options, output
from dlp_cli.options import PluginOption


def list_(
    kind: Annotated[
        str | None, typer.Argument(metavar="[KIND]", help="solvers, backbones, ..., or recipes.")
    ] = None,
    plugins: PluginOption = None,
) -> None:
    """List the names of all components and recipes, or one kind with details."""
    from dlp_plugins.recipe.files import recipe_names
    from dlp_plugins.registry import KINDS, of_kind

    options.load_plugins(plugins)
    if kind is None:
        known = {k.kind: k.names() for k in KINDS} | {"recipes": recipe_names()}
        output.print_table(("kind", "names"), [(k, ", ".join(v)) for k, v in known.items()])
        output.say("Details: dlp list KIND, dlp show KIND NAME")
    elif kind in ("recipe", "recipes"):
        output.print_table(("name", "summary"), map(_recipe_row, recipe_names()))
        output.say("Try one: dlp run NAME")
    else:
        chosen = of_kind(kind)
        rows = [_component_row(kind, name) for name in chosen.names()]
        output.print_table(("name", "summary", "from", "state"), rows)
        output.say(f"Parameters: dlp show {chosen.kind} NAME")


def _component_row(kind: str, name: str) -> tuple[str | Text, ...]:
    from dlp_plugins.errors import DlpError
    from dlp_plugins.registry import of_kind

    try:
        component = of_kind(kind).find(name)
        _ = component.model  # its signature can be read
    except DlpError as error:
        return name, "", "", Text(f"broken: {error}", style="red")
    shown = f"{name}:<name>" if component.family else name
    if component.missing():
        state = Text(f"needs: {component.install_command}", style="yellow")
    else:
        state = Text("ok", style="green")
    return shown, component.summary, component.origin, state


def _recipe_row(name: str) -> tuple[str, str]:
    from dlp_plugins.errors import DlpError
    from dlp_plugins.recipe.files import find_recipe, read_layers

    try:
        layers = read_layers(find_recipe(name))
    except DlpError as error:
        return name, f"broken: {error}"
    return name, str(layers[-1].data.get("description", ""))
