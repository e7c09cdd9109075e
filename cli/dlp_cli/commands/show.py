"""`dlp show`: everything about one component, or about the settings of a recipe."""

from __future__ import annotations

import inspect
import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlp_cli import complete, options, output
from dlp_cli.options import JsonOption, PluginOption

if TYPE_CHECKING:
    from dlp_cli.settings import Setting, SettingsTable
    from dlp_plugins.component import Component

MEMBERS_SHOWN = 20


def show(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="solvers, backbones, ..., recipes or settings.",
            autocompletion=complete.kinds_and_more,
        ),
    ],
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="See `dlp list KIND`; of settings: a table's name.",
            autocompletion=complete.names,
        ),
    ] = None,
    matching: Annotated[
        str, typer.Option("--filter", metavar="TEXT", help="Of a family: members with this text.")
    ] = "",
    plugins: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a component's parameters, docs and origin, a recipe's text, or what settings mean."""
    options.load_plugins(plugins)
    if matching:
        _check_family(kind, name)
    if kind in ("setting", "settings"):
        _show_settings(name, as_json)
        return
    if name is None:
        from dlp_plugins.errors import UsageError
        from dlp_plugins.registry import of_kind

        if kind not in ("recipe", "recipes"):
            of_kind(kind)
        raise UsageError(
            f"dlp show {kind} NAME: the name is missing. `dlp list {kind}` lists them."
        )
    if kind in ("recipe", "recipes"):
        _show_recipe(name, as_json)
        return
    from dlp_plugins.registry import of_kind

    found = of_kind(kind)
    component = found.get(name) if ":" in name else found.find(name)
    if as_json:
        output.print_json(to_json(component, name, matching))
        return
    _print_about(component, name)
    _print_parameters(component, name)
    if component.family and ":" not in name:
        _print_members(component, matching)


def _check_family(kind: str, name: str | None) -> None:
    """Raise UsageError where --filter would be ignored: what is shown has no members."""
    from dlp_plugins.errors import UsageError
    from dlp_plugins.registry import of_kind

    other = kind in ("recipe", "recipes", "setting", "settings")
    if name is None or other or ":" in name or not of_kind(kind).find(name).family:
        raise UsageError(
            f"--filter belongs to a family such as `dlp show backbones timm`; "
            f"{' '.join(filter(None, (kind, name)))} is none. Leave it out."
        )


def to_json(component: Component, name: str, matching: str = "") -> dict[str, Any]:
    """All that is known of a component; of a family also its members with that text."""
    table = _table_of(component)
    members = component.members() if component.family and ":" not in name else None
    return {
        "kind": component.kind,
        "name": name,
        "doc": inspect.getdoc(component.factory) or "",
        "origin": component.origin,
        "requires": list(component.requires),
        "missing": component.missing(),
        "install": component.install_command if component.missing() else None,
        "family": component.family,
        "members": None if members is None else [m for m in members if matching in m],
        "table": table.key if table else None,
        "parameters": [setting.as_dict() for setting in _parameters(component, table)],
    }


def _table_of(component: Component) -> SettingsTable | None:
    """The table of a recipe that holds its parameters; None for selectors."""
    from dlp_cli import settings

    return next((t for t in settings.tables() if t.kind == component.kind), None)


def _parameters(component: Component, table: SettingsTable | None) -> list[Setting]:
    """Its own, then those of its table, of which the first is the name."""
    from dlp_cli import settings

    return [*settings.parameters(component), *(table.settings()[1:] if table else ())]


def _show_recipe(name: str, as_json: bool) -> None:
    from dlp_plugins.recipe.files import find_recipe, read_recipe_text

    path = find_recipe(name)
    text = read_recipe_text(path)
    if as_json:
        output.print_json({"kind": "recipes", "name": path.stem, "file": str(path), "text": text})
    else:
        output.say(text.rstrip())


def _show_settings(name: str | None, as_json: bool) -> None:
    from dlp_cli import settings
    from dlp_plugins.errors import UsageError, did_you_mean

    known = {table.key: table for table in settings.tables()}
    if name is not None and name not in known:
        raise UsageError(
            f"A recipe has no table '{name}'.{did_you_mean(name, known)} "
            f"Tables: {', '.join(filter(None, known))}."
        )
    chosen = [*known.values()] if name is None else [known[name]]
    if as_json:
        output.print_json({"tables": [t.as_dict(components=name is not None) for t in chosen]})
        return
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


def _print_parameters(component: Component, name: str) -> None:
    from dlp_cli.settings import COLUMNS

    table = _table_of(component)
    rows = _parameters(component, table)
    if rows:
        output.print_table(("parameter", *COLUMNS[1:]), [s.row() for s in rows])
    example = shlex.join(_example(component, name, table, rows))
    if table is None:  # selectors are no part of a recipe
        output.say(f"{'' if rows else 'No parameters. '}On the command line: dlp suggest {example}")
    elif rows:
        output.say(f"In a recipe: {table.title}; on the command line: {example}")
    else:
        output.say(f"No parameters. On the command line: {example}")


def _example(
    component: Component, name: str, table: SettingsTable | None, rows: list[Setting]
) -> list[str]:
    """Words that choose the component and set a parameter, all that it requires among them."""
    from dlp_cli.settings import toml_text

    if component.family and ":" not in name:
        members = component.members() or []
        name = f"{name}:{members[0] if members else '<name>'}"
    with_default = [(s.key, s.value) for s in rows if s.value is not None][:1]
    required = [
        (s.key, ["..."] if s.type.startswith("list") else "...") for s in rows if s.required
    ]
    shown = required or with_default
    if table is not None and table.repeated:
        inside = ", ".join(f"{k} = {toml_text(v)}" for k, v in [("name", name), *shown])
        return ["--set", f"{table.key}=[{{{inside}}}]"]
    key = "selector" if table is None else table.key
    chosen = ["--selector", name] if table is None else ["--set", f"{key}={name}"]
    texts = (f"{key}.{k}={v if isinstance(v, str) else toml_text(v)}" for k, v in shown)
    return [*chosen, *(word for text in texts for word in ("--set", text))]


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
