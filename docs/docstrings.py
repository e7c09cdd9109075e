"""Docstrings as Markdown: lists where a docstring has `name: meaning` lines or a section of them.

Used by make_components.py and, while MkDocs makes the Python API's pages, by site_hooks.py; so it
imports neither the package nor MkDocs.
"""

from __future__ import annotations

import re

SECTION = re.compile(r"(Args|Raises|Returns|Attributes):")
ITEM = re.compile(r"([A-Za-z_][\w.]*(?:, [A-Za-z_][\w.]*)*): (?=\S)")


def as_markdown(text: str, sections: bool = True) -> str:
    """A docstring's text, whose paragraphs of `name: meaning` lines become lists.

    sections: those under `Args:` and the like too; else these stay as they are.

    >>> print(as_markdown("rows: [n, d].\\nk: neighbours of each,\\n    at most n - 1."))
    - `rows`: [n, d].
    - `k`: neighbours of each,
      at most n - 1.
    """
    paragraphs = re.split(r"\n{2,}", text.strip("\n"))
    return "\n\n".join(
        p if not sections and SECTION.match(p) else _paragraph(p) for p in paragraphs
    )


def _paragraph(text: str) -> str:
    first, _, rest = text.partition("\n")
    if found := SECTION.fullmatch(first):
        lines = [line.removeprefix("    ") for line in rest.splitlines()]
        return f"{found[1]}:\n\n{_items(lines)}"
    lines = text.splitlines()
    if first.startswith(">>> "):
        code = "\n".join(re.sub(r"\s*# doctest:.*", "", line) for line in lines)
        return f"```pycon\n{code}\n```"
    if all(ITEM.match(line) or line.startswith("  ") for line in lines) and ITEM.match(first):
        return _items(lines)
    return text if first.startswith("    ") else escaped(text)


def _items(lines: list[str]) -> str:
    made = []
    for line in lines:
        if found := ITEM.match(line):
            made.append(f"- `{found[1]}`: {escaped(line[found.end() :])}")
        elif line.startswith(" "):
            made.append(f"  {escaped(line.strip())}")
        else:
            made.append(f"- {escaped(line)}")
    return "\n".join(made)


def escaped(text: str) -> str:
    """Without what Markdown would read as a tag or as emphasis; code between ` stays as it is."""
    parts = text.split("`")
    parts[::2] = [part.replace("*", r"\*").replace("<", "&lt;") for part in parts[::2]]
    return "`".join(parts)
