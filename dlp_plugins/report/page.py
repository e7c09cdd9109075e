"""The page: sections of figures, tables, pictures and sentences as one HTML file.

Everything that comes from outside is escaped, and the page forbids itself scripts and the network.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

from dlp_plugins.report import plot
from dlp_plugins.report.points import Absent, printable

STYLE = Path(__file__).with_name("style.css")
MOST_BYTES = 5_000_000
# No script, no request: images are inside the page.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Figure:
    """name: unique in the page, letters and hyphens. size: width and height, inches."""

    name: str
    title: str
    caption: str
    paint: plot.Paint
    size: tuple[float, float] = (4.7, 3.1)

    def html(self) -> str:
        svg = plot.to_svg(self.name, f"{self.title}. {self.caption}", self.paint, self.size)
        return (
            f'<figure class="plot" id="{escape(self.name)}"><h3>{escape(self.title)}</h3>{svg}'
            f"<figcaption>{escape(self.caption)}</figcaption></figure>"
        )


@dataclass(frozen=True)
class Sheet:
    """A table. numbers: whether the columns after the first hold numbers."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    numbers: bool = True

    def html(self) -> str:
        def row(cells: Sequence[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        head = row(self.header, "th") if any(self.header) else ""
        body = "".join(row(cells, "td") for cells in self.rows)
        kind = "sheet numbers" if self.numbers else "sheet"
        return (
            f'<div class="{kind}">{_heading(self.title)}<div class="scroll"><table><thead>{head}'
            f"</thead><tbody>{body}</tbody></table></div>{_caption(self.caption)}</div>"
        )


@dataclass(frozen=True)
class Picture:
    """image: PNG or JPEG. lines: below it. name: of the image, a path. wrong: marked as such."""

    image: bytes
    lines: Sequence[str]
    name: str
    wrong: bool = False

    def html(self) -> str:
        kind = "png" if self.image.startswith(b"\x89PNG") else "jpeg"
        data = base64.b64encode(self.image).decode()
        name = printable(self.name)
        end = printable(self.name.rpartition("/")[2] or self.name)
        first, *others = [*map(printable, self.lines), end]
        below = "".join(f"<span>{escape(line)}</span>" for line in others)
        return (
            f'<li{" class=wrong" if self.wrong else ""} title="{escape(name)}">'
            f'<img alt="{escape(first)}" '
            f'src="data:image/{kind};base64,{data}"><b>{escape(first)}</b>{below}</li>'
        )


@dataclass(frozen=True)
class Gallery:
    name: str
    title: str
    caption: str
    pictures: Sequence[Picture]

    def html(self) -> str:
        return (
            f'<div class="gallery" id="{escape(self.name)}">{_heading(self.title)}'
            f"<ul>{''.join(p.html() for p in self.pictures)}</ul>{_caption(self.caption)}</div>"
        )


@dataclass(frozen=True)
class Listing:
    """Text as it stands, folded: a recipe."""

    title: str
    text: str

    def html(self) -> str:
        return (
            f"<details><summary>{escape(self.title)}</summary><pre>{escape(self.text)}</pre>"
            "</details>"
        )


Block = Figure | Sheet | Gallery | Listing | Absent


@dataclass(frozen=True)
class Section:
    """small: its figures are small ones, of which four stand side by side."""

    name: str
    title: str
    blocks: Sequence[Block]
    small: bool = False

    def html(self) -> str:
        shown = [b.html() for b in self.blocks if not isinstance(b, Absent)]
        reasons = dict.fromkeys(b.reason for b in self.blocks if isinstance(b, Absent))
        notes = "".join(f'<p class="absent">{escape(reason)}</p>' for reason in reasons)
        kind = "grid small" if self.small else "grid"
        grid = f'<div class="{kind}">{"".join(shown)}</div>' if shown else ""
        return (
            f'<section id="part-{escape(self.name)}"><h2>{escape(self.title)}</h2>{grid}{notes}'
            "</section>"
        )


@dataclass(frozen=True)
class Page:
    title: str
    subtitle: str
    sections: Sequence[Section]

    @property
    def figures(self) -> list[Figure]:
        return [b for s in self.sections for b in s.blocks if isinstance(b, Figure)]

    def html(self) -> str:
        """The whole file, at most MOST_BYTES: pictures go first where it would be larger."""
        text = self._html()
        if len(text.encode()) > MOST_BYTES:
            text = self._without_pictures()._html()
        return text

    def _without_pictures(self) -> Page:
        reason = Absent("The images are left out: with them the page would be larger than 5 MB.")
        sections = [
            replace(s, blocks=[reason if isinstance(b, Gallery) else b for b in s.blocks])
            for s in self.sections
        ]
        return replace(self, sections=sections)

    def _html(self) -> str:
        links = "".join(
            f'<a href="#part-{escape(s.name)}">{escape(s.title)}</a>' for s in self.sections
        )
        text = (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<link rel="icon" href="data:,">\n<title>{escape(self.title)}</title>\n'
            f"<style>\n{STYLE.read_text(encoding='utf-8')}</style>\n</head>\n<body>\n<header>"
            f"<h1>{escape(self.title)}</h1><p>{escape(self.subtitle)}</p><nav>{links}</nav>"
            f"</header>\n<main>\n{''.join(s.html() + chr(10) for s in self.sections)}</main>\n"
            "</body>\n</html>\n"
        )
        # A JSON file may hold half a character, which no file of UTF-8 can.
        return text.encode("utf-8", "replace").decode("utf-8")


def _heading(title: str) -> str:
    return f"<h3>{escape(title)}</h3>" if title else ""


def _caption(text: str) -> str:
    return f'<p class="caption">{escape(text)}</p>' if text else ""
