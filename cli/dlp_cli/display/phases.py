"""A bar for each phase of a long command; on a pipe, a line for each that has ended."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn

from dlp_cli.display.bars import Bars
from dlp_cli.output import can_redraw, console, error_console

Report = Callable[[str, float, float | None], None]


@contextmanager
def show_phases(titles: dict[str, str]) -> Iterator[Report]:
    """Gives a function to call with (phase, how much is done, of how much or None).

    `titles`: what to call each phase. Goes to standard error, so that a summary can be piped.
    """
    if console.quiet:
        yield lambda phase, done, total: None
        return
    if not can_redraw(error_console):
        yield _lines(titles, percent=error_console.is_terminal)
        return
    with Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        console=error_console,
    ) as progress:
        tasks: dict[str, TaskID] = {}

        def report(phase: str, done: float, total: float | None) -> None:
            if phase not in tasks:
                tasks[phase] = progress.add_task(titles.get(phase, phase), total=total)
            progress.update(tasks[phase], completed=done, total=total)

        yield report


def _lines(titles: dict[str, str], percent: bool) -> Report:
    """percent: one line at a time is written over, as a notebook can."""
    began: dict[str, float] = {}
    shown: dict[str, int] = {}

    def report(phase: str, done: float, total: float | None) -> None:
        start = began.setdefault(phase, time.perf_counter())
        share = int(100 * done / total) if total else 0
        if percent and phase not in ended and share != shown.get(phase):
            shown[phase] = share
            print(
                f"\r{titles.get(phase, phase)}: {share:3} % ", end="", file=sys.stderr, flush=True
            )
        if total is not None and done >= total and phase not in ended:
            ended.add(phase)
            text = f"{titles.get(phase, phase)}: {time.perf_counter() - start:.1f} s"
            if percent:
                print("\r", end="", file=sys.stderr, flush=True)
            error_console.print(text + "  " * percent, soft_wrap=True)

    ended: set[str] = set()
    return report
