"""For mkdocstrings: `name: meaning` lines of docstrings as lists."""

from __future__ import annotations

from typing import Any

import griffe
from docstrings import as_markdown  # site_hooks.py has put this folder on the path


class Lists(griffe.Extension):
    """Changes the plain text of docstrings; what griffe reads as a section stays as it is."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring and "----\n" not in obj.docstring.value:
            obj.docstring.value = as_markdown(obj.docstring.value, sections=False)
