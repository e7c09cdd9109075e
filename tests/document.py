"""A Markdown page as a reader meets it: its code blocks and inline commands, in order."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

COMMAND = re.compile(r"(dlp|make|pip|python|\.)(\s|$)")
FENCE = re.compile(r"^([ ]*)```(\w*)\n(.*?)^[ ]*```$", re.M | re.S)
CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Block:
    """A code block, or an inline command (language 'inline'). line: where it begins, from 1."""

    page: str
    line: int
    language: str
    text: str

    @property
    def file(self) -> str | None:
        """`# name.py` in the first line says that the reader saves the block under that name."""
        found = re.match(r"# (\w+\.(?:py|toml))\n", self.text)
        return found[1] if found else None

    @property
    def commands(self) -> list[str]:
        """Lines of a shell block without their comments."""
        lines = (re.sub(r"\s+#\s.*", "", line).strip() for line in self.text.splitlines())
        return [line for line in lines if line and not line.startswith("#")]

    def __str__(self) -> str:
        return f"{self.page}, line {self.line}"


def blocks(path: Path) -> list[Block]:
    """Every code block and inline command of a page, in its order."""
    return sorted(_blocks(path), key=lambda block: block.line)


def _blocks(path: Path) -> Iterator[Block]:
    text = path.read_text(encoding="utf-8")

    def line(at: int) -> int:
        return text.count("\n", 0, at) + 1

    for found in FENCE.finditer(text):
        code = textwrap.dedent(found[3])
        yield Block(path.name, line(found.start()), found[2], code)
    prose = FENCE.sub(lambda found: "\n" * found[0].count("\n"), text)
    prose = re.sub(r"^!\[.*$", "", prose, flags=re.M)
    for found in CODE.finditer(prose):
        if COMMAND.match(found[1]):
            at = prose.count("\n", 0, found.start()) + 1
            yield Block(path.name, at, "inline", " ".join(found[1].split()))


def prose_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines outside of code blocks, tables and pictures, with their numbers."""
    text = FENCE.sub(lambda found: "\n" * found[0].count("\n"), path.read_text(encoding="utf-8"))
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.lstrip().startswith(("|", "![")):
            yield number, line
