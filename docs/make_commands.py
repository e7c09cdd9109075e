"""Writes docs/commands.md: every command of `dlp` with its arguments and options, from the code.

    python docs/make_commands.py

A test compares the page with what this gives.
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from dlp_cli.annotations import type_text
from dlp_cli.app import app
from dlp_cli.settings import default_text
from make_recipes import markdown
from typer.models import ArgumentInfo, OptionInfo

PAGE = Path(__file__).resolve().with_name("commands.md")
HEAD = """\
# The commands

Written by `python docs/make_commands.py`; do not edit. `dlp --help` lists the commands, and each
takes `--help`. An option without a default is optional.
"""
COLUMNS = ("name", "value", "default", "meaning")
# The page that shows a command at work
GUIDES = {
    "run": "runs", "bench": "results", "embed": "photos", "propagate": "embeddings",
    "audit": "audit", "explain": "audit", "suggest": "suggest", "label": "label",
    "assign": "embeddings", "predict": "photos", "export": "photos", "report": "report",
    "graph build": "embeddings", "graph info": "embeddings", "graph check": "embeddings",
    "plan": "embeddings", "check": "recipes", "list": "components", "show": "components",
    "tune": "tune", "new": "plugins", "cp": "recipes", "doctor": "errors",
}  # fmt: skip


def page() -> str:
    found = [(c.name or "", c.callback) for c in app.registered_commands]
    for group in app.registered_groups:
        assert group.typer_instance is not None
        inside = group.typer_instance.registered_commands
        found += [(f"{group.name} {c.name}", c.callback) for c in inside]
    return HEAD + "".join(section(name, callback) for name, callback in found if callback)


def section(name: str, callback: Callable[..., Any]) -> str:
    text = f"\n## dlp {name}\n\n{inspect.getdoc(callback)}\n"
    if name in GUIDES:
        text += f"\nMore in [{GUIDES[name]}.md]({GUIDES[name]}.md).\n"
    hints = get_type_hints(callback, include_extras=True)
    parameters = inspect.signature(callback).parameters.values()
    rows = [row(p.name, p.default, hints[p.name]) for p in parameters]
    return text + (f"\n{markdown(COLUMNS, rows)}" if rows else "")


def row(name: str, default: Any, annotation: Any) -> tuple[str, ...]:
    """Name, value, default and meaning of a parameter that is annotated as Typer wants it."""
    assert get_origin(annotation) is Annotated, name
    declared, *metadata = get_args(annotation)
    (info,) = (m for m in metadata if isinstance(m, ArgumentInfo | OptionInfo))
    if isinstance(info, ArgumentInfo):
        shown, value = alternatives(info.metavar or name.upper()), ""
    else:
        shown = option_name(name, declared is bool, info)
        value = "" if declared is bool else alternatives(info.metavar or value_text(declared))
    return f"`{shown}`", value, shown_default(default, shown), info.help or ""


def option_name(name: str, switch: bool, info: OptionInfo) -> str:
    # Typer keeps the first name that is given in place of the default
    given = [info.default] if isinstance(info.default, str) else []
    given += info.param_decls or ()
    option = "--" + name.replace("_", "-")
    return ", ".join(given) or (f"{option}/--no-{option[2:]}" if switch else option)


def alternatives(metavar: str) -> str:
    """`A|B` in words: the sign would end a cell of the table."""
    return " or ".join(metavar.split("|"))


def value_text(annotation: Any) -> str:
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return " or ".join(str(member.value) for member in annotation)
    return type_text(annotation)


def shown_default(default: Any, shown: str) -> str:
    """In words. shown: the parameter's name in the table."""
    if default is inspect.Parameter.empty:
        return "required"
    if isinstance(default, bool):
        # of a switch with two names the one that holds; else how it stands is clear from its name
        on, _, off = shown.partition("/")
        return f"`{on if default else off}`" if off else ""
    return default_text(default.value if isinstance(default, enum.Enum) else default)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
