"""Printing that is not live: messages, tables, errors. What a user gave is never read as markup."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

# On a pipe nobody looks at the width: whole lines serve grep better.
_width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 1000
console = Console(width=_width, markup=False, highlight=False, emoji=False)
error_console = Console(stderr=True, markup=False, highlight=False, emoji=False)


@contextlib.contextmanager
def waiting(text: str) -> Iterator[None]:
    """A spinner while something takes a few seconds; nothing on a pipe."""
    if console.is_interactive and sys.stdout.isatty():
        with console.status(text):
            yield
    else:
        yield


def say(text: str | Text = "", style: str = "") -> None:
    """Print to standard output; lines are never broken, so commands and paths can be copied."""
    console.print(text, style=style, soft_wrap=True)


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
            reason = f"The results could not be printed ({error.strerror}); {where}."
            error_console.print(reason.rstrip("; ."), soft_wrap=True)


def print_error(message: str) -> None:
    """`error: ...` on standard error."""
    error_console.print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str | Text]], title: str | None = None
) -> None:
    """A table no wider than the terminal; on a pipe every row is one line."""
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, style="bold" if i == 0 else "", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)
