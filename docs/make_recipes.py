"""Writes docs/recipes.md: every key of a recipe and every component's parameters, from the code.

    python docs/make_recipes.py

A test compares the page with what this gives.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from dlp_cli import settings
from dlp_cli.settings import COLUMNS, Setting, SettingsTable

PAGE = Path(__file__).resolve().with_name("recipes.md")
HEAD = """\
# What a recipe may hold

Written by `python docs/make_recipes.py`; do not edit. `dlp show settings` prints the same for what
is installed, `dlp show settings solver` one table with its components, `dlp show solver cg` one
component. A key without a default is optional.
"""


def page() -> str:
    return HEAD + "".join(map(section, settings.tables()))


def section(table: SettingsTable) -> str:
    heading = f"`{table.title}`" if table.key else "Above all tables"
    own = [row(s) for s in table.settings()]
    text = f"\n## {heading}\n\n"
    if not table.kind:
        return text + markdown(COLUMNS, own)
    again = ", and may stand several times" if table.repeated else ""
    default = f"by default `{table.default}`" if table.default else "by default none"
    text += f"`name` chooses the component, {default}{again}.\n\n"
    components = table.components()
    text += markdown(("name", "what it is"), [(f"`{c.name}`", c.summary) for c in components])
    if own[1:]:
        text += "\nWhichever it is:\n\n" + markdown(COLUMNS, own[1:])
    taken = [(f"`{c.name}`", *row(s)) for c in components for s in settings.parameters(c)]
    if taken:
        text += "\nParameters:\n\n" + markdown(("name", *COLUMNS), taken)
    return text


def row(setting: Setting) -> tuple[str, ...]:
    key, *rest = setting.row()
    return (f"`{key}`", *rest)


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *([escape(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def escape(cell: str) -> str:
    """What Markdown would read as a tag, emphasis or the end of a cell."""
    if cell.startswith("`"):
        return cell
    return re.sub(r"([*|])", r"\\\1", cell).replace("<", "&lt;")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
