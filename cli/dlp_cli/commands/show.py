"""`dlp show`: everything about one component."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlp_cli import output

if TYPE_CHECKING:
    from dlp_plugins.component import Component

MEMBERS_SHOWN = 20


def show(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="solvers, backbones, ..., recipes.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="See `dlp list KIND`.")],
    matching: Annotated[
        str, typer.Option("--filter", metavar="TEXT", help="Of a family: members with this text.")
    ] = "",
) -> None:
    """Show a component's parameters, docs and origin, or a recipe's text."""
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
    from dlp_cli.annotations import bounds_text, range_text, type_text
    from dlp_plugins.recipe.model import PARTS, Part
    from dlp_plugins.registry import of_kind

    rows = [
        (
            p.name,
            type_text(p.annotation),
            range_text(p.annotation),
            "required" if p.required else _default(p.default),
            p.description,
        )
        for p in component.parameters
    ]
    key = next(k for k in PARTS if of_kind(k).kind == component.kind)
    rows += [
        (
            name,
            type_text(field.annotation),
            range_text(field.annotation) or bounds_text(field.metadata),
            _default(field.default),
            field.description or "",
        )
        for name, field in PARTS[key].model_fields.items()
        if name not in Part.model_fields
    ]
    if rows:
        output.print_table(("parameter", "type", "range", "default", "meaning"), rows)
        output.say(f"In a recipe: [{key}]; on the command line: --set {key}.{rows[0][0]}=...")
    else:
        output.say(f"No parameters. On the command line: --set {key}={component.name}")


def _default(value: Any) -> str:
    return "" if value is None else str(value)


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
