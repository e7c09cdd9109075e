"""`dlp list`: which components and recipes there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from dlp_cli import complete, options, output
from dlp_cli.options import JsonOption, PluginOption

if TYPE_CHECKING:
    from dlp_plugins.component import Component


def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="[KIND]",
            help="solvers, backbones, ..., recipes or suites.",
            autocompletion=complete.kinds_and_recipes,
        ),
    ] = None,
    plugins: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the names of all components and recipes, or one kind with details."""
    from dlp_plugins.bench.suite import suite_names
    from dlp_plugins.recipe.files import recipe_names
    from dlp_plugins.registry import KINDS, of_kind

    options.load_plugins(plugins)
    if kind is None:
        known = {k.kind: k.names() for k in KINDS} | {"recipes": recipe_names()}
        known["suites"] = suite_names()
        if as_json:
            output.print_json(known)
            return
        output.print_table(("kind", "names"), [(k, ", ".join(v)) for k, v in known.items()])
        output.say("Details: dlp list KIND, dlp show KIND NAME")
    elif kind in ("recipe", "recipes"):
        recipes = [_recipe(name) for name in recipe_names()]
        if as_json:
            output.print_json({"kind": "recipes", "recipes": recipes})
            return
        rows = [
            (r["name"], f"broken: {r['problem']}" if r["problem"] else r["description"])
            for r in recipes
        ]
        output.print_table(("name", "summary"), rows)
        output.say("Try one: dlp run NAME")
    elif kind in ("suite", "suites"):
        suites = [_suite(name) for name in suite_names()]
        if as_json:
            output.print_json({"kind": "suites", "suites": suites})
            return
        output.print_table(("name", "summary"), [(s["name"], s["description"]) for s in suites])
        output.say("Run one: dlp bench NAME")
    else:
        chosen = of_kind(kind)
        found = [_component(kind, name) for name in chosen.names()]
        if as_json:
            output.print_json({"kind": chosen.kind, "components": found})
            return
        output.print_table(("name", "summary", "from", "state"), map(_row, found))
        output.say(f"Parameters: dlp show {chosen.kind} NAME")


def _component(kind: str, name: str) -> dict[str, Any]:
    from dlp_plugins.errors import DlpError
    from dlp_plugins.registry import of_kind

    component: Component | None
    try:
        component, problem = of_kind(kind).find(name), None
        _ = component.model  # its signature can be read
    except DlpError as error:
        component, problem = None, str(error)
    missing = component.missing() if component else []
    return {
        "name": name,
        "family": bool(component and component.family),
        "summary": component.summary if component else "",
        "origin": component.origin if component else None,
        "usable": component is not None and not missing,
        "missing": missing,
        "install": component.install_command if component and missing else None,
        "problem": problem,
    }


def _row(found: dict[str, Any]) -> tuple[str | Text, ...]:
    name, summary, origin = found["name"], found["summary"], found["origin"] or ""
    if found["problem"]:
        return name, "", "", Text(f"broken: {found['problem']}", style="red")
    shown = f"{name}:<name>" if found["family"] else name
    if found["missing"]:
        return shown, summary, origin, Text(f"needs: {found['install']}", style="yellow")
    return shown, summary, origin, Text("ok", style="green")


def _recipe(name: str) -> dict[str, Any]:
    from dlp_plugins.errors import DlpError
    from dlp_plugins.recipe.files import find_recipe, read_layers

    found = {"name": name, "description": "", "problem": None}
    try:
        layers = read_layers(find_recipe(name))
    except DlpError as error:
        return found | {"problem": str(error)}
    return found | {"description": str(layers[-1].data.get("description", ""))}


def _suite(name: str) -> dict[str, str]:
    from dlp_plugins.bench.suite import find_suite
    from dlp_plugins.recipe.files import read_toml

    path = find_suite(name)
    assert path is not None
    return {"name": name, "description": str(read_toml(path).get("description", ""))}
