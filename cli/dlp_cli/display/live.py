"""The live display of a run. The only place that knows Rich's live display.

On a pipe, or a terminal that cannot move its cursor, `plain.PlainLines` takes its place.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from dlp_cli import output
from dlp_cli.display.plain import PlainLines
from dlp_cli.display.run_state import RunState, for_the_test
from dlp_plugins.training.events import Event, Listener, Note

REFRESHES_PER_SECOND = 4
FULL_WIDTH, FULL_HEIGHT = 72, 20  # a smaller terminal gets the compact form
STAGES = {"supervised": "before propagation", "propagation": "label propagation"}
CHART_ROWS = 6
BLOCKS = " ▁▂▃▄▅▆▇█"


@contextlib.contextmanager
def open_display(title: str) -> Iterator[Listener]:
    """A listener that shows a run as it goes, for the length of the context."""
    console = output.console
    if not (output.can_redraw(console) and sys.stdout.isatty()):
        yield PlainLines(output.print_line)
        return
    state = RunState(title)
    screen = RunScreen(state)
    live = Live(screen, console=console, refresh_per_second=REFRESHES_PER_SECOND)
    with contextlib.ExitStack() as stack:
        live.start()
        stack.callback(_stop, live)
        size = console.size

        def listen(event: Event) -> None:
            nonlocal size
            state(event)
            if isinstance(event, Note):
                console.print(event.text, style="yellow")
            if console.size != size:  # the terminal has broken the lines of its former width
                size = console.size
                live.stop()
                console.clear()
                live.start()

        yield listen


def _stop(live: Live) -> None:
    """Leave the last screen standing. A terminal that is gone is no reason to fail."""
    with contextlib.suppress(OSError):
        live.refresh()
        live.stop()


class RunScreen:
    """A run's state as a Rich renderable, laid out for the size that the terminal has."""

    def __init__(self, state: RunState) -> None:
        self.state = state

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = options.max_width, console.size.height
        if width < FULL_WIDTH or height < FULL_HEIGHT:
            yield _compact(self.state, height)
            return
        parts = (_header(self.state), _bars(self.state), _panels(self.state))
        lines = [line for part in parts for line in console.render_lines(part, options)]
        for line in lines:
            yield from line
            yield Segment.line()
        rows = min(height - len(lines) - 2, CHART_ROWS)
        if rows >= 1 and not options.ascii_only:
            yield _chart(self.state, width, rows)
        yield Text()  # as in `Bars`


def _header(state: RunState) -> RenderableType:
    s = state.started
    lines = Text(no_wrap=True, overflow="ellipsis")
    if s is None:
        lines.append(state.phase, "dim")
    else:
        lines.append(f"{s.description or state.title}\n", "bold")
        lines.append(
            f"{s.num_train:,} images, {s.num_labeled:,} labelled, {s.num_classes:,} classes; "
            f"{for_the_test(s)}\n"
        )
        lines.append(f"{s.device}; {s.folder}" + ("; resumed" if s.resumed else ""), "dim")
    title = Text(f"dlp run {state.title}")  # a plain string would be read as markup
    return Panel(lines, title=title, title_align="left", border_style="cyan")


def _bars(state: RunState) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    grid.add_column(justify="right", no_wrap=True, min_width=7)
    grid.add_column(justify="right", no_wrap=True, min_width=16)
    grid.expand = True
    for name, epochs in state.started.stages if state.started else ():
        here = name == state.stage
        done = state.progress if here else float(state.done.get(name, 0))
        left = state.seconds_left if here else None
        note = "done" if done >= epochs else "" if left is None else f"{clock_text(left)} left"
        label = Text(STAGES.get(name, name), "bold" if here else "")
        count = f"{min(state.done.get(name, 0) + here, epochs)}/{epochs}"
        grid.add_row(label, ProgressBar(epochs, done, complete_style="green"), count, note)
    step = ProgressBar(max(state.steps, 1), state.step, complete_style="cyan")
    grid.add_row("step", step, f"{state.step}/{state.steps}", Text(state.phase, "cyan"))
    return grid


def _panels(state: RunState) -> Table:
    sides = Table.grid(expand=True)
    sides.add_column(ratio=1)
    sides.add_column(ratio=1)
    training, health = _training_rows(state), _health_rows(state)
    tall = max(len(training), len(health)) + 2
    sides.add_row(
        Panel(_pairs(training), title="training", title_align="left", height=tall),
        Panel(_pairs(health), title="label propagation", title_align="left", height=tall),
    )
    return sides


Row = tuple[str, Text]


def _pairs(rows: Sequence[Row]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, overflow="ellipsis")
    grid.add_column(no_wrap=True, justify="right", overflow="ellipsis")
    grid.expand = True
    for label, value in rows:
        grid.add_row(label, value)
    return grid


def _training_rows(state: RunState) -> list[Row]:
    m = state.metrics
    teacher = "teacher_test_error" in m
    rows: list[Row] = []
    if state.started is None or state.started.num_test:
        name = "test error, student" if teacher else "test error"
        rows.append((name, _percent(m, "test_error", "bold")))
    if teacher:
        rows.append(("test error, teacher", _percent(m, "teacher_test_error", "bold")))
    alone = state.last_error("supervised")
    if state.stage == "propagation" and alone is not None:
        rows.append(("  before propagation", Text(f"{alone:.2f} %", "dim")))
    if "validation_error" in m:
        rows.append(("validation error", _percent(m, "validation_error")))
    rows.append(("loss", _number(m, "loss_total", ".4f")))
    terms = [k for k in m if k.startswith("loss_") and k != "loss_total"]
    if len(terms) > 1:  # a single term is the total
        rows += [(f"  {k.removeprefix('loss_')}", _number(m, k, ".4f")) for k in terms]
    rows.append(("learning rate", _number(m, "learning_rate", ".4g")))
    rows.append(("images/s", _number(m, "images_per_second", ",.0f")))
    return rows


def _health_rows(state: RunState) -> list[Row]:
    m = state.metrics
    rows = [("pseudo-label accuracy", _percent(m, "pseudo_label_accuracy", "bold"))]
    rows.append(("certainty", _number(m, "certainty", ".3f")))
    rows.append(("residual", _number(m, "residual", ".1e")))
    rows.append(("iterations", _number(m, "iterations", ",")))
    rows.append(("images no label reaches", _count(m, "unreached")))
    if m.get("not_yet_reached"):
        rows.append(("images not reached yet", _count(m, "not_yet_reached")))
    rows.append(("components without label", _count(m, "unlabeled_components")))
    rows.append(("classes without example", _count(m, "empty_classes")))
    rows.append(("seconds per refresh", _number(m, "propagation_seconds", ".2f")))
    return rows


def _compact(state: RunState, height: int) -> RenderableType:
    """Bars, then as many of the most telling numbers as there is room for."""
    bars = _bars(state)
    known = [
        r for r in [*_training_rows(state), *_health_rows(state)] if r[1].plain not in ("", "-")
    ]
    room = max(height - len(bars.rows) - 2, 0)
    return Group(bars, _pairs(known[:room]), Text())  # the empty line as in `Bars`


def _chart(state: RunState, width: int, rows: int) -> RenderableType:
    """The test error over all epochs to come, before propagation dim, with it in colour."""
    errors = state.errors()
    if not errors or state.started is None:
        return Text()
    top = chart_top([error for _, _, error in errors])
    clipped = any(error > top for _, _, error in errors)
    label = f"{'over ' if clipped else ''}{top:.1f} % "
    room = width - len(label) - 1
    columns = stretch(
        [(at, e) for _, at, e in errors], sum(n for _, n in state.started.stages), room
    )
    lines = block_lines([error / top for _, error in columns], rows)
    second = min((at for stage, at, _ in errors if stage == "propagation"), default=None)
    text = Text("test error by epoch\n", no_wrap=True)
    for n, line in enumerate(lines):
        side = label if n == 0 else "0 % " if n == len(lines) - 1 else ""
        text.append(side.rjust(len(label)), "dim")
        for (at, _), character in zip(columns, line, strict=True):
            text.append(character, "dim" if second is None or at < second else "green")
        text.append("\n" if n < len(lines) - 1 else "")
    return text


def chart_top(errors: Sequence[float]) -> float:
    """The chart's upper end: the first epochs' errors must not flatten all that follow."""
    return min(max(errors), 3 * statistics.median(errors)) or 1.0


def stretch(errors: Sequence[tuple[int, float]], total: int, width: int) -> list[tuple[int, float]]:
    """(epoch, error) for each column of a chart `width` wide that has room for `total` epochs.

    An epoch that was not measured shows the last error before it; epochs to come have no column.
    """
    known, columns = list(errors), []
    current = known[0]
    for column in range(width):
        while known and known[0][0] < (column + 1) * total / width:
            current = known.pop(0)
        columns.append(current)
        if not known and (column + 1) * total / width > current[0] + 1 - 1e-9:
            break
    return columns


def block_lines(shares: Sequence[float], rows: int) -> list[str]:
    """Shares of the full height, 0..1, as columns of block characters; the top line first."""
    # At least one eighth: a share of 0 is a measurement, not a gap.
    heights = [max(round(8 * rows * min(share, 1.0)), 1) for share in shares]
    return [
        "".join(BLOCKS[min(max(h - 8 * row, 0), 8)] for h in heights)
        for row in reversed(range(rows))
    ]


def clock_text(seconds: float) -> str:
    """Hours, minutes, seconds: 0:01:05."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def _percent(metrics: dict[str, Any], key: str, style: str = "") -> Text:
    return Text(f"{metrics[key]:.2f} %", style) if key in metrics else Text("-")


def _number(metrics: dict[str, Any], key: str, form: str, style: str = "") -> Text:
    return Text(format(metrics[key], form), style) if key in metrics else Text("-")


def _count(metrics: dict[str, Any], key: str) -> Text:
    return _number(metrics, key, ",", "yellow" if metrics.get(key) else "")
