"""The display, driven by a scripted run: what it shows, at which sizes, on terminal and pipe."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import select
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dlp_cli import output
from dlp_cli.display.live import (
    RunScreen,
    _health_rows,
    _training_rows,
    block_lines,
    chart_top,
    clock_text,
    stretch,
)
from dlp_cli.display.phases import show_phases
from dlp_cli.display.plain import PlainLines
from dlp_cli.display.run_state import RunState
from dlp_cli.output import CONTROLS, SafeConsole
from places import ROOT
from rich.console import Console
from rich.live import Live

from dlp_plugins.propagation import Health
from dlp_plugins.training import events

HEALTHY = Health(3.2e-7, 17, True, 0, 0, 0)
ENOUGH = Health(4.2e-3, 20, False, 0, 0, 0)  # short of the tolerance; labels no longer change
SICK = Health(4.2e-1, 20, False, 12, 2, 1, 7)
STAGES = (("supervised", 3), ("propagation", 4))


def started(folder: Path = Path("runs/x"), resumed: bool = False) -> events.RunStarted:
    return events.RunStarted(
        folder, "A [red]description[/red]", "CPU", 1347, 50, 450, 10, STAGES, resumed
    )


def epoch(stage: str, number: int, teacher: bool = False, **more: Any) -> list[events.Event]:
    """One epoch of ten steps; the error is 40 - number in stage one, 9 - number in stage two."""
    error = (40.0 if stage == "supervised" else 9.0) - number
    metrics = {
        "stage": stage, "epoch": number, "steps": 10, "loss_total": 0.5, "loss_supervised": 0.5,
        "test_error": error, "learning_rate": 0.1, "images_per_second": 5000.0, "seconds": 1.0,
        **({"teacher_test_error": error - 0.5} if teacher else {}), **more,
    }  # fmt: skip
    return [
        events.EpochStarted(stage, number, 10, 0),
        events.StepDone(5, {"supervised": 0.6, "total": 0.7}, 0.1, 4000.0),
        events.PhaseStarted("evaluate"),
        events.EpochDone(stage, number, metrics),
    ]


def script(health: Health = HEALTHY, teacher: bool = False) -> list[events.Event]:
    """A whole run."""
    found: list[events.Event] = [started(), events.StageStarted("supervised", 3, 0)]
    for n in range(3):
        found += epoch("supervised", n, teacher)
    found.append(events.StageStarted("propagation", 4, 0))
    for n in range(4):
        found.append(events.PhaseStarted("propagate"))
        found.append(events.PseudoLabelsRefreshed(n, health, 0.9, 95.25, 0.3))
        more = {**health.as_dict(), "certainty": 0.9, "pseudo_label_accuracy": 95.25}
        found += epoch("propagation", n, teacher, **more)
    return [*found, events.RunDone(Path("runs/x"), {})]


def state_of(some: list[events.Event], **arguments: Any) -> RunState:
    state = RunState("x", **arguments)
    for event in some:
        state(event)
    return state


def shown(state: RunState, width: int, height: int) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True)
    console.print(RunScreen(state))
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())  # type: ignore[attr-defined]


# -- what it shows --------------------------------------------------------------------------------


def test_everything_is_on_the_screen_at_80x24() -> None:
    screen = shown(state_of(script(SICK, teacher=True)[:-1]), 80, 24)
    for text in (
        "dlp run x", "A [red]description[/red]", "1,347 images, 50 labelled, 10 classes",
        "450 for the test", "CPU; runs/x", "3/3", "4/4", "done",
        "test error, student", "6.00 %", "test error, teacher", "5.50 %", "before propagation",
        "38.00 %", "loss", "learning rate", "0.1", "5,000", "pseudo-label accuracy", "95.25 %",
        "certainty", "0.900", "residual", "4.2e-01", "iterations", "20",
        "images no label reaches", "12", "components without label", "classes without example",
        "test error by epoch",
    ):  # fmt: skip
        assert text in screen, f"{text!r} is missing from\n{screen}"


def test_a_residual_is_a_figure_and_no_warning_in_an_epoch() -> None:
    for health, residual in ((HEALTHY, "3.2e-07"), (ENOUGH, "4.2e-03"), (SICK, "4.2e-01")):
        screen = shown(state_of(script(health)), 80, 24)
        assert "converged" not in screen
        assert "may change" not in screen
        assert residual in screen


def test_without_a_teacher_there_is_no_teachers_error() -> None:
    assert "teacher" not in shown(state_of(script()), 80, 24)


def test_terms_of_the_loss_where_there_is_more_than_one() -> None:
    state = state_of(script())
    assert "supervised " not in shown(state, 80, 24)
    state(events.StepDone(5, {"supervised": 0.2, "consistency": 0.1, "total": 0.3}, 0.1, 1.0))
    assert "consistency" in shown(state, 80, 24)


def test_what_was_not_measured_is_a_dash() -> None:
    screen = shown(state_of([started(), events.StageStarted("supervised", 3, 0)]), 80, 24)
    assert re.search(r"test error +- ", screen)
    assert re.search(r"pseudo-label accuracy +- ", screen)


def test_before_the_data_are_loaded() -> None:
    assert "loading data" in shown(RunState("x"), 80, 24)


@pytest.mark.parametrize("teacher", [False, True])
@pytest.mark.parametrize(
    ("width", "height"), [(80, 24), (120, 40), (72, 20), (71, 24), (60, 15), (40, 10), (20, 5)]
)
def test_fits_any_size_at_every_moment(width: int, height: int, teacher: bool) -> None:
    state = RunState("x" * 200)
    for event in script(SICK, teacher):
        state(event)
        lines = shown(state, width, height).split("\n")[:-1]
        assert len(lines) <= height
        assert lines[-1] == ""  # where `^C` is echoed
        assert max(map(len, lines)) <= width


def test_the_compact_form_leads_with_the_error() -> None:
    screen = shown(state_of(script()), 60, 12)
    assert "label propagation" in screen
    assert "test error" in screen
    assert "6.00 %" in screen


def test_the_picture_of_the_readme_has_the_words_of_the_display() -> None:
    picture = (ROOT / "docs/display.svg").read_text(encoding="utf-8").replace("&#160;", " ")
    state = state_of(script()[:-1])
    for label, _ in [*_training_rows(state), *_health_rows(state)]:
        assert label in picture, "run python docs/make_display_svg.py"


# -- progress and time left -----------------------------------------------------------------------


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_time_left_is_the_pace_so_far_times_what_remains() -> None:
    clock = Clock()
    state = state_of([started(), events.StageStarted("supervised", 4, 0)], clock=clock)
    assert state.seconds_left is None
    state(events.EpochStarted("supervised", 0, 10, 0))
    assert state.seconds_left is None
    clock.now += 5
    state(events.StepDone(5, {}, 0.1, 1.0))
    assert state.progress == 0.5
    assert state.seconds_left == pytest.approx(35)  # half an epoch took 5 s; 3.5 are left
    state(events.EpochDone("supervised", 0, {}))
    clock.now += 5
    assert state.seconds_left == pytest.approx(30)


def test_time_left_after_a_resume_counts_only_what_this_process_did() -> None:
    clock = Clock()
    state = state_of([started(), events.StageStarted("supervised", 10, 6)], clock=clock)
    state(events.EpochStarted("supervised", 6, 10, 5))
    assert state.progress == 6.5
    assert state.seconds_left is None
    clock.now += 2
    state(events.EpochDone("supervised", 6, {}))
    assert state.seconds_left == pytest.approx(2 / 0.5 * 3)


def test_clock_text() -> None:
    assert [clock_text(s) for s in (0.4, 65, 3725.2, 100 * 3600)] == [
        "0:00:00", "0:01:05", "1:02:05", "100:00:00",
    ]  # fmt: skip


def test_a_resumed_run_shows_the_errors_from_before() -> None:
    lines = [{"stage": "supervised", "epoch": n, "test_error": 40.0 - n} for n in range(3)]
    lines.append({"stage": "propagation", "epoch": 0, "test_error": 7.0})
    begun = replace(started(resumed=True), history=tuple(lines))
    state = state_of([begun, events.StageStarted("propagation", 4, 1)])
    assert state.errors()[-1] == ("propagation", 3, 7.0)
    assert state.last_error("supervised") == 38.0
    assert state.done == {"supervised": 3, "propagation": 1}
    assert "resumed" in shown(state, 120, 30)
    # An epoch that is repeated after the resume takes its line's place.
    state(events.EpochDone("propagation", 0, {"test_error": 6.5}))
    assert state.errors()[-1] == ("propagation", 3, 6.5)


# -- the chart ------------------------------------------------------------------------------------


def test_chart_columns_show_each_epoch_where_it_falls() -> None:
    errors = [(n, float(n)) for n in range(4)]
    assert [e for _, e in stretch(errors, 8, 16)] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [e for _, e in stretch(errors, 4, 4)] == [0, 1, 2, 3]
    assert [e for _, e in stretch(errors, 4, 2)] == [1, 3]
    # epochs 0 and 3 measured, of 8: what lies between shows the last error before it
    assert [e for _, e in stretch([(0, 9.0), (3, 5.0)], 8, 8)] == [9, 9, 9, 5]


@pytest.mark.parametrize("total", [1, 3, 40, 360])
@pytest.mark.parametrize("width", [1, 10, 66])
def test_chart_is_never_wider_than_its_room(total: int, width: int) -> None:
    for done in (1, total):
        columns = stretch([(n, 1.0) for n in range(done)], total, width)
        assert 1 <= len(columns) <= width
    assert len(columns) == width  # a finished run fills it


def test_block_lines() -> None:
    assert block_lines([0.0, 0.5, 1.0, 7.0], 1) == ["▁▄██"]
    assert block_lines([0.25, 0.5, 0.75, 1.0], 2) == ["  ▄█", "▄███"]


def test_early_errors_do_not_flatten_the_chart() -> None:
    assert chart_top([90.0, 10.0, 8.0, 6.0, 4.0]) == 24.0
    assert chart_top([6.0, 5.0, 4.0]) == 6.0
    assert chart_top([0.0, 0.0]) == 1.0


# -- plain ----------------------------------------------------------------------------------------


def test_plain_is_one_line_per_epoch() -> None:
    lines: list[str] = []
    listener = PlainLines(lines.append)
    for event in script(SICK, teacher=True):
        listener(event)
    assert len(lines) == 1 + 3 + 4
    assert lines[0].startswith("A [red]description[/red]: 1,347 images, 50 labelled")
    assert lines[1].startswith("supervised 1/3: loss 0.5000, test error 40.00 %, teacher's 39.50 %")
    assert "certainty" not in lines[1]
    last = lines[-1]
    for text in (
        "propagation 4/4", "test error 6.00 %", "teacher's 5.50 %", "pseudo-label accuracy 95.25 %",
        "certainty 0.900", "20 iterations, relative residual 4.2e-01, ",
        "12 images that no label reaches",
        "2 components without a label", "1 class without an example", "7 images not reached yet",
        "lr 0.1", "5,000 images/s",
    ):  # fmt: skip
        assert text in last
    assert not any("\n" in line for line in lines)


@pytest.mark.parametrize("health", [HEALTHY, ENOUGH])
def test_plain_says_nothing_of_what_is_well(health: Health) -> None:
    lines: list[str] = []
    listener = PlainLines(lines.append)
    for event in script(health):
        listener(event)
    for text in ("reach", "components", "classes without", "converged", "may"):
        assert text not in lines[-1]
    assert f"{health.iterations} iterations, relative residual {health.residual:.1e}" in lines[-1]
    assert "residual" not in lines[2]  # nothing is solved in stage one


# -- what others wrote must not steer the terminal ------------------------------------------------

EVIL = "\x1b]0;owned\x07\x1b[2Jx\x9b31m\u202e"
# what Rich writes for its colours and to move its cursor, and nothing else
OWN = re.compile(r"\x1b\[(\d+(;\d+)*m|\d*A|2K|\?25[lh])")


def test_a_description_with_escape_sequences_is_shown_without_them() -> None:
    file = io.StringIO()
    console = SafeConsole(file=file, width=80, height=24, force_terminal=True)
    state = RunState(EVIL)
    for event in [replace(started(), description=EVIL, device=EVIL), *script()[1:8]]:
        state(event)
    with Live(RunScreen(state), console=console, auto_refresh=False) as live:
        live.refresh()
    text = OWN.sub("", file.getvalue())
    assert "x31m" in text
    assert not set(text) & {chr(code) for code in CONTROLS - {13}}


def test_plain_lines_write_escape_sequences_out(capsys: pytest.CaptureFixture[str]) -> None:
    PlainLines(output.print_line)(replace(started(), description=EVIL))
    assert r"\x1b]0;owned\x07\x1b[2Jx\x9b31m\u202e: 1,347 images" in capsys.readouterr().out


# -- Ctrl-C ---------------------------------------------------------------------------------------


def emulate(text: str, width: int, height: int) -> list[str]:
    """The lines that a terminal of that size shows, those that scrolled out of it first."""
    screen, gone = [[" "] * width for _ in range(height)], []
    row = column = 0

    def down() -> None:
        nonlocal row
        if row == height - 1:
            gone.append(screen.pop(0))
            screen.append([" "] * width)
        else:
            row += 1

    for count, code, character in re.findall(r"\x1b\[([?0-9;]*)([A-Za-z])|(.)", text, re.S):
        if code == "A":
            row = max(row - int(count or 1), 0)
        elif code == "K":
            screen[row] = [" "] * width
        elif code:
            assert code in "mhl", code
        elif character == "\r":
            column = 0
        elif character == "\n":
            down()
            column = 0
        else:
            if column == width:
                down()
                column = 0
            screen[row][column] = character
            column += 1
    return ["".join(line).rstrip() for line in gone + screen]


@pytest.mark.parametrize(("width", "height"), [(60, 15), (80, 24), (80, 20)])
def test_what_ctrl_c_echoes_does_not_double_a_line_of_the_display(width: int, height: int) -> None:
    file = io.StringIO()
    console = SafeConsole(file=file, width=width, height=height, force_terminal=True)
    state = state_of(script()[:-1])
    with Live(RunScreen(state), console=console, auto_refresh=False) as live:
        live.refresh()
        file.write("^C")
        state(events.RunInterrupted(Path("runs/x")))
        live.refresh()
    lines = emulate(file.getvalue(), width, height)
    assert lines.count(lines[0]) == 1  # what is drawn again starts where it started before
    assert not any("^C" in line for line in lines)


@pytest.mark.parametrize("width", [40, 60, 80])
def test_what_ctrl_c_echoes_does_not_double_a_progress_bar(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = io.StringIO()
    console = SafeConsole(file=file, width=width, height=24, force_terminal=True)
    monkeypatch.setattr("dlp_cli.display.phases.error_console", console)
    with show_phases({"a": "Finding neighbours", "b": "Building the graph"}) as report:
        report("a", 10, 10)
        report("b", 1, 10)
        time.sleep(0.15)  # Rich draws ten times a second
        file.write("^C")
    lines = emulate(file.getvalue(), width, 24)
    assert sum("Finding" in line for line in lines) == 1


# -- a real terminal, a real pipe -----------------------------------------------------------------

PROGRAM = textwrap.dedent("""
    import time, sys
    sys.path[:0] = {tests!r}
    import test_display
    from dlp_cli.display.live import open_display
    with open_display("x") as listen:
        for event in test_display.script(test_display.SICK):
            listen(event)
            time.sleep(0.02)
    print("after")
""").format(tests=[str(Path(__file__).parent), str(ROOT / "tests")])


def on_terminal(**environment: str) -> str:
    """What the scripted run writes to a pseudo-terminal of 80x24."""
    main, side = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24", **environment}
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=side, stderr=side, stdin=side, env=env
    )
    os.close(side)
    found = b""
    deadline = time.monotonic() + 60
    with contextlib.suppress(OSError):  # the end of a pseudo-terminal reads as an error
        while time.monotonic() < deadline:
            if select.select([main], [], [], 0.5)[0]:
                found += os.read(main, 65536)
            elif child.poll() is not None:
                break
    os.close(main)
    assert child.wait(timeout=10) == 0, found.decode()
    return found.decode()


@pytest.mark.commands
def test_on_a_terminal_it_moves_and_shows_the_end_when_it_is_over() -> None:
    text = on_terminal(NO_COLOR="")
    assert "\x1b[1A" in text  # the cursor goes up: the screen is drawn again in place
    assert "\x1b[32m" in text or "\x1b[36m" in text  # colour
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor is shown again
    final = text[text.rindex("dlp run x") :]
    assert "4/4" in final
    assert final.rstrip().endswith("after")


@pytest.mark.slow
def test_no_color_is_respected() -> None:
    text = on_terminal(NO_COLOR="1")
    assert "\x1b[1A" in text
    codes = {
        int(c) for found in re.findall(r"\x1b\[([0-9;]*)m", text) for c in found.split(";") if c
    }
    assert not {c for c in codes if c >= 30}, codes  # bold and dim only


@pytest.mark.commands
def test_a_dumb_terminal_gets_plain_lines() -> None:
    text = on_terminal(TERM="dumb")
    assert "\x1b" not in text
    assert "propagation 4/4: " in text


@pytest.mark.commands
def test_the_terminal_of_a_notebooks_command_gets_plain_lines() -> None:
    text = on_terminal(JPY_PARENT_PID="1", TERM="xterm-color")  # as `!dlp run` has them
    assert "\x1b" not in text
    assert "propagation 4/4: " in text


@pytest.mark.commands
def test_a_pipe_gets_plain_lines_even_where_colour_is_forced() -> None:
    env = {**os.environ, "FORCE_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=env, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert len(done.stdout.splitlines()) == 1 + 3 + 4 + 1


def test_a_note_is_a_line_of_its_own() -> None:
    lines: list[str] = []
    PlainLines(lines.append)(events.Note("training.safetensors is damaged."))
    assert lines == ["training.safetensors is damaged."]
