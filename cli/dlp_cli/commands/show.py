"""`dlp show`: everything about one component, or about the settings of a recipe."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated

import typer

from dlp_cli import options, output
from dlp_cli.options import PluginOption

if TYPE_CHECKING:
    from dlp_plugins.component import Component

MEMBERS_SHOWN = 20


def show(
    kind: Annotated[
        str,
        typer.Argument(metavar="KIND", help="solvers, backbones, ..., recipes or settings."),
    ],
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="See `dlp list KIND`; of settings: a table's name."),
    ] = None,
    matching: Annotated[
        str, typer.Option("--filter", metavar="TEXT", help="Of a family: members with this text.")
    ] = "",
    plugins: PluginOption = None,
) -> None:
    """Show a component's parameters, docs and origin, a recipe's text, or what settings mean."""
    options.load_plugins(plugins)
    if kind in ("setting", "settings"):
        _print_settings(name)
        return
    if name is None:
        from dlp_plugins.errors import UsageError

        raise UsageError(
            f"dlp show {kind} NAME: the name is missing. `dlp list {kind}` lists them."
        )
    if kind in ("recipe", "recipes"):
        from dlp_plugins.recipe.files import find_recipe

        output.say(find_recipe(name).read_text(encoding="utf-8").rstrip())
        return
    from dlp_plugins.registry import of_kind

    found = of_kind(kind)
    component = found.get(name) if ":" in name else found.find(name)
    _print_about(component, name)
    _print_parameters(component)
    if component.family and ":" not in name:
        _print_members(component, matching)


def _print_settings(name: str | None) -> None:
    from dlp_cli import settings
    from dlp_plugins.errors import UsageError, did_you_mean

    known = {table.key: table for table in settings.tables()}
    if name is not None and name not in known:
        raise UsageError(
            f"A recipe has no table '{name}'.{did_you_mean(name, known)} "
            f"Tables: {', '.join(filter(None, known))}."
        )
    chosen = known.values() if name is None else [known[name]]
    rows = [
        s.row(f"{table.key}." if table.key else "") for table in chosen for s in table.settings()
    ]
    output.print_table(settings.COLUMNS, rows)
    if name is None:
        output.say("With the parameters of its components: dlp show settings TABLE")
        return
    for component in known[name].components():
        if taken := settings.parameters(component):
            output.print_table(
                settings.COLUMNS, [s.row(f"{name}.") for s in taken], f"with {component.name}"
            )


def _print_about(component: Component, name: str) -> None:
    output.say(f"{component.kind} {name}", style="bold")
    output.say((inspect.getdoc(component.factory) or "No docs.") + "\n")
    output.say(f"from: {component.origin}")
    if component.requires:
        needs = ", ".join(component.requires)
        missing = component.missing()
        state = f"not installed; run: {component.install_command}" if missing else "installed"
        output.say(f"needs: {needs} ({state})")


def _print_parameters(component: Component) -> None:
    from dlp_cli import settings

    table = next((t for t in settings.tables() if t.kind == component.kind), None)
    if table is None:  # selectors are no part of a recipe
        _print_own_parameters(component)
        return
    rows = [*settings.parameters(component), *table.settings()[1:]]  # the first is the name
    if rows:
        output.print_table(("parameter", *settings.COLUMNS[1:]), [s.row() for s in rows])
        example = f"--set {table.key}.{rows[0].key}=..."
        output.say(f"In a recipe: {table.title}; on the command line: {example}")
    else:
        output.say(f"No parameters. On the command line: --set {table.key}={component.name}")


def _print_own_parameters(component: Component) -> None:
    from dlp_cli import settings

    rows = settings.parameters(component)
    if rows:
        output.print_table(("parameter", *settings.COLUMNS[1:]), [s.row() for s in rows])
        output.say(f"On the command line: dlp suggest --set selector.{rows[0].key}=...")
    else:
        output.say(f"No parameters. On the command line: dlp suggest --selector {component.name}")


def _print_members(component: Component, matching: str) -> None:
    members = component.members()
    if members is None:
        output.say(f"A family: write {component.name}:<name>.")
        return
    found = [m for m in members if matching in m]
    shown = found if matching else found[:MEMBERS_SHOWN]
    output.say(f"\nA family of {len(members)}: write {component.name}:<name>.", style="bold")
    for member in shown:
        output.say(f"  {component.name}:{member}")
    if not found:
        output.say(f"  none has '{matching}' in its name")
    if len(shown) < len(found):
        output.say(f"  and {len(found) - len(shown)} more; --filter TEXT shows those with TEXT")
