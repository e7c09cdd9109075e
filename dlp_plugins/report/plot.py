"""Figures of Matplotlib as SVG inside the page, which take its colours, and as PNG files."""

from __future__ import annotations

import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dlp_plugins.component import install_command
from dlp_plugins.errors import MissingDependency

# Drawn in these colours; in the page's SVG the style sheet chooses, for light and dark.
INK, LINE = "#222839", "#d6dae6"
THEME = {INK: "currentColor", LINE: "var(--line)"}
GOOD, BAD = "#3d7fd0", "#e5793a"  # told apart by colour-blind people too
LINES = ("#3d7fd0", "#e5793a", "#2fa37c", "#b1559c", "#c9a21b", "#6f63d2", "#4cb3d4", "#d0524f")
DPI = 160
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text: it is small, sharp and can be searched
    "svg.hashsalt": "dlp-plugins",  # the same figure is the same file
    "text.parse_math": False,  # a class called "$a$" is no formula
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": LINE,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.7,
}

Paint = Callable[[Any], None]
"""Draws on Matplotlib's Axes."""


def check_matplotlib() -> None:
    """Raise MissingDependency unless Matplotlib is installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingDependency(
            "`dlp report` needs Matplotlib, which is not installed. Run: "
            f"{install_command('report')}"
        ) from None


def to_svg(name: str, label: str, paint: Paint, size: tuple[float, float]) -> str:
    """The figure as an <svg> element for a page.

    Args:
        name: of the figure, unique in the page. label: for people who do not see it.
        size: width and height, inches.
    """
    return _for_the_page(_drawn(paint, size, "svg").decode(), name, label)


def to_png(paint: Paint, size: tuple[float, float]) -> bytes:
    """The figure on white."""
    return _drawn(paint, size, "png")


def _drawn(paint: Paint, size: tuple[float, float], form: str) -> bytes:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    style: Any = STYLE  # Matplotlib's stubs list every key
    with rc_context(style), _without_glyph_warnings():
        figure = Figure(figsize=size, layout="constrained")
        paint(figure.add_subplot())
        if form == "svg":
            figure.savefig(buffer, format=form, dpi=DPI, transparent=True, metadata={"Date": None})
        else:
            figure.savefig(buffer, format=form, dpi=DPI)
    return buffer.getvalue()


@contextmanager
def _without_glyph_warnings() -> Iterator[None]:
    """The browser has fonts for names that Matplotlib's own font lacks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def _for_the_page(svg: str, name: str, label: str) -> str:
    """Without namespaces and metadata; identifiers unique in the page; the page's colours."""
    root = ET.fromstring(svg)
    for parent in root.iter():
        for child in [c for c in parent if _local(c.tag) in ("metadata", "style")]:
            parent.remove(child)
    for element in root.iter():
        element.tag = _local(element.tag)
        for key, value in [*element.attrib.items()]:
            del element.attrib[key]
            element.attrib[_local(key)] = _rewritten(_local(key), value, name)
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.attrib |= {"role": "img", "aria-label": label}
    return ET.tostring(root, encoding="unicode")


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _rewritten(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == "href":
        return f"#{name}-{value[1:]}" if value.startswith("#") else value
    value = re.sub(r"url\(#", f"url(#{name}-", value)
    for color, themed in THEME.items():
        value = value.replace(color, themed)
    return value
