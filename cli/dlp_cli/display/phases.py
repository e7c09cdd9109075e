"""A bar for each phase of a long command; on a pipe, a line for each that has ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn

from dlp_cli.display.bars import Bars
from dlp_cli.output import console, error_console

Report = Callable[[str, float, float | None], None]


@contextmanager
def show_phases(titles: dict[str, str]) -> Iterator[Report]:
    """Gives a function to call with (phase, how much is done, of how much or None).

    `titles`: what to call each phase. Goes to standard error, so that a summary can be piped.
    """
    if console.quiet:
        yield lambda phase, done, total: None
        return
    if not error_console.is_terminal:
        yield _lines(titles)
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


def _lines(titles: dict[str, str]) -> Report:
    began: dict[str, float] = {}

    def report(phase: str, done: float, total: float | None) -> None:
        start = began.setdefault(phase, time.perf_counter())
        if total is not None and done >= total and phase not in ended:
            ended.add(phase)
            error_console.print(
                f"{titles.get(phase, phase)}: {time.perf_counter() - start:.1f} s", soft_wrap=True
            )

    ended: set[str] = set()
    return report
