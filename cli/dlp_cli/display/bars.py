"""Progress bars whose last line is empty."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import RenderableType
from rich.progress import Progress
from rich.text import Text


class Bars(Progress):
    """Rich's progress bars above an empty line.

    At Ctrl-C the terminal echoes `^C` where the cursor stands. At the end of a line as wide as the
    terminal that breaks the line, and what is drawn next would start one line too low.
    """

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        yield Text()
