"""Bars in a notebook: of phases, of a run; and only where a notebook is."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dlp_cli.display.phases import show_phases
from dlp_cli.output import SafeConsole, can_redraw

from dlp_plugins.notebook.progress import in_notebook, phase_bars
from dlp_plugins.training import events
from dlp_plugins.training import run as training
from dlp_plugins.training.bar import EpochBar


def pretend(monkeypatch: pytest.MonkeyPatch, shell: Any) -> None:
    """As if IPython were there, with this shell."""
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))


KERNEL = SimpleNamespace(kernel=object())


def test_a_notebook_is_told_from_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not in_notebook()
    for shell, expected in ((None, False), (SimpleNamespace(), False), (KERNEL, True)):
        pretend(monkeypatch, shell)
        assert in_notebook() is expected


def test_a_bar_for_each_phase(capsys: pytest.CaptureFixture[str]) -> None:
    with phase_bars() as progress:
        progress("read", 0, 40)
        progress("read", 40, 40)
        progress("solve", 0, None)
        progress("solve", 1, 1)
        progress("write", 1, 3)  # broken off
    shown = capsys.readouterr().err.replace("\r", "\n")
    for text in ("read: 100%|", "40/40", "solve: 100%|", "write:  33%|"):
        assert text in shown


def run_events() -> list[events.Event]:
    stages = (("supervised", 2), ("propagation", 3))
    history = ({"stage": "supervised", "epoch": 0},)
    found: list[events.Event] = [
        events.RunStarted(Path("r"), "", "CPU", 9, 2, 3, 2, stages, True, history)
    ]
    for stage, epoch in (("supervised", 1), *(("propagation", i) for i in range(3))):
        metrics = {"loss_total": 0.5, "test_error": 12.5 + epoch}
        found.append(events.EpochDone(stage, epoch, metrics))
    return [*found, events.RunDone(Path("r"), {})]


def test_a_bar_of_a_runs_epochs(capsys: pytest.CaptureFixture[str]) -> None:
    bar = EpochBar()
    for event in run_events():
        bar(event)
    last = capsys.readouterr().err.rstrip().rpartition("\r")[2]
    assert "5/5" in last
    assert "loss=0.5, test error=14.5" in last


def test_run_shows_a_bar_in_a_notebook_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: list[list[Any]] = []
    monkeypatch.setattr(training, "train", lambda *_, listeners, **__: given.append([*listeners]))

    def listener(event: events.Event) -> None: ...

    training.run("digits", tmp_path / "a")
    pretend(monkeypatch, KERNEL)
    training.run("digits", tmp_path / "a")
    training.run("digits", tmp_path / "a", listeners=[listener])
    assert given[0] == []
    assert isinstance(given[1][0], EpochBar)
    assert given[2] == [listener]


def test_below_a_notebook_one_line_is_written_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    console = SafeConsole(stderr=True, force_terminal=True, color_system=None)
    monkeypatch.setattr("dlp_cli.display.phases.error_console", console)
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    monkeypatch.setenv("TERM", "xterm-color")  # as kernels set it
    assert can_redraw(console)
    monkeypatch.setenv("JPY_PARENT_PID", "1")
    assert not can_redraw(console)
    with show_phases({"read": "Reading"}) as report:
        for done in range(0, 401):
            report("read", done, 400)
    text = capsys.readouterr().err
    assert "\x1b" not in text
    assert text.count("\r") == 101 + 1  # 0 to 100 %, and the last line
    assert text.count("\n") == 1
    assert text.rpartition("\r")[2].startswith("Reading: 0.")
