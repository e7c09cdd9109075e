"""Printing that is not live: messages, tables, errors. What a user gave is never read as markup."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

# C0 and C1 control characters except tab and newline, and the marks that turn text around: a name
# from a file that holds them could move the cursor, set the terminal's title or pose as another.
CONTROLS = {*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)} - {9, 10}
ESCAPED = {code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" for code in CONTROLS}
REMOVED = dict.fromkeys(CONTROLS)


def clean(text: str) -> str:
    r"""The text with its control characters written out.

    >>> print(clean("a\x1b[31mb"))
    a\x1b[31mb
    """
    return text if text.isprintable() else text.translate(ESCAPED)


class SafeConsole(Console):
    """A console whose only escape sequences are its own; what `clean` has not seen loses them."""

    def render(self, *arguments: Any, **more: Any) -> Iterator[Segment]:
        for segment in super().render(*arguments, **more):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield segment._replace(text=segment.text.translate(REMOVED))


for _name in ("stdout", "stderr"):
    if getattr(sys, _name) is None:  # started with it closed: the next file opened would take over
        setattr(sys, _name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115

console = SafeConsole(markup=False, highlight=False, emoji=False)
error_console = SafeConsole(stderr=True, markup=False, highlight=False, emoji=False)


def can_redraw(of: Console) -> bool:
    """Whether lines can be drawn again: on a terminal, and not below a notebook.

    `!dlp run` in a notebook has a terminal, but what moves its cursor does nothing on the page: it
    would show every frame of a display below the last. Jupyter's kernels set this variable for the
    programs that they start; the terminals of JupyterLab, which are real ones, do not have it.
    """
    return of.is_interactive and "JPY_PARENT_PID" not in os.environ


@contextlib.contextmanager
def waiting(text: str, of: Console | None = None) -> Iterator[None]:
    """A spinner while something takes a few seconds; nothing on a pipe."""
    of = of or console
    if can_redraw(of) and of.file.isatty():
        with of.status(text):
            yield
    else:
        yield


def silence() -> None:
    """Print no results from now on: another process does. Errors are printed all the same."""
    console.quiet = True


def say(text: str | Text = "", style: str = "") -> None:
    """Print to standard output; lines are never broken, so commands and paths can be copied."""
    console.print(clean(text) if isinstance(text, str) else text, style=style, soft_wrap=True)


def print_line(text: str) -> None:
    """A line of progress, without the console: of a long run the pipe shows each at once."""
    if not console.quiet:
        print(clean(text), flush=True)


def print_json(value: dict[str, Any]) -> None:
    """One JSON document, for another program; a number that is not finite becomes null.

    Of several processes the first prints it.
    """
    from dlp_plugins._files.writing import to_json

    if console.quiet:
        return
    with after_the_work():
        print(to_json(value, indent=2), flush=True)


@contextlib.contextmanager
def after_the_work(where: str = "") -> Iterator[None]:
    """For printing results: a closed or full standard output is no failure of what was done.

    where: for the note on standard error, where the results are besides.
    """
    try:
        yield
        sys.stdout.flush()
    except (OSError, SystemExit) as error:  # Rich leaves the program at a closed pipe
        # What is still buffered goes nowhere, so that it does not fail again at exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            text = f"The results could not be printed ({error.strerror}){where and '; ' + where}."
            error_console.print(text, soft_wrap=True)


def print_error(message: str) -> None:
    """`error: ...` on standard error."""
    error_console.print(Text.assemble(("error: ", "bold red"), clean(message)), soft_wrap=True)


def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """`warning: ...` on standard error, in place of Python's file and line."""
    with contextlib.suppress(OSError, SystemExit):  # standard error may be closed, too
        text = Text.assemble(("warning: ", "bold yellow"), clean(str(message)))
        error_console.print(text, soft_wrap=True)


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str | Text]], title: str | None = None
) -> None:
    """A table no wider than the terminal; on a pipe every row is one line, without a frame."""
    if not sys.stdout.isatty():
        _print_lines(columns, [*rows], title)
        return
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, style="bold" if i == 0 else "", overflow="fold")
    for row in rows:
        table.add_row(*(clean(cell) if isinstance(cell, str) else cell for cell in row))
    console.print(table)


def _print_lines(
    columns: Sequence[str], rows: Sequence[Sequence[str | Text]], title: str | None
) -> None:
    texts = [[clean(str(cell)).replace("\n", " ") for cell in row] for row in (columns, *rows)]
    widths = [max(map(cell_len, column)) for column in zip(*texts, strict=True)]
    if title:
        say(f"\n{title}")
    for row in texts:
        cells = (t + " " * (width - cell_len(t)) for t, width in zip(row, widths, strict=True))
        say("  ".join(cells).rstrip())
