"""Writes docs/components.md: every component that comes with the project, from the registry.

    python docs/make_components.py

A test compares the page with what this gives.
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

from dlp_cli import settings
from dlp_cli.settings import COLUMNS
from docstrings import as_markdown, escaped
from make_recipes import markdown, row

from dlp_plugins.component import BUILT_IN, Component
from dlp_plugins.errors import DlpError
from dlp_plugins.registry import KINDS, Registry

PAGE = Path(__file__).resolve().with_name("components.md")
HEAD = """\
# The components

Written by `python docs/make_components.py`; do not edit. `dlp list` names those that are installed,
yours among them, `dlp show solver cg` shows one. Their parameters are in [recipes.md](recipes.md).
How to write one: [plugins.md](plugins.md).
"""


def page() -> str:
    return HEAD + "".join(map(section, KINDS))


def section(kind: Registry) -> str:
    contract = importlib.import_module(f"dlp_plugins.{kind.kind}.contract")
    text = f"\n## {kind.kind}\n\n{(contract.__doc__ or '').partition(chr(10))[0]}\n"
    components = built_in(kind)
    in_recipes = any(table.kind == kind.kind for table in settings.tables())
    for component in components:
        text += f"\n### {kind.kind}: {component.name}\n\n{about(component)}"
        parameters = settings.parameters(component)
        if parameters and not in_recipes:
            text += f"\n{markdown(COLUMNS, map(row, parameters))}"
    return text


def built_in(kind: Registry) -> list[Component]:
    found = []
    for name in kind.names():
        try:
            component = kind.find(name)
        except DlpError:
            continue  # a plug-in's package that is installed here and broken
        if component.origin == BUILT_IN:
            found.append(component)
    return found


def about(component: Component) -> str:
    summary, _, rest = (inspect.getdoc(component.factory) or "").partition("\n")
    text = f"{escaped(summary)}\n"
    if rest.strip():
        text += f"\n{as_markdown(rest)}\n"
    if component.family:
        text += f"\nA family: write `{component.name}:NAME`.\n"
    if component.extra:
        text += f"\nNeeds `pip install '.[{component.extra}]'`.\n"
    return text


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
