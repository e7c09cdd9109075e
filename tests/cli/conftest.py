"""What tests of commands share."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent
from typing import Any, NamedTuple

import pytest
from dlp_cli import output
from dlp_cli.app import main

from dlp_plugins.registry import KINDS


class Done(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def dlp(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """A function that runs the command in this process."""

    def dlp_(*words: str | Path) -> Done:
        capsys.readouterr()
        for console in (output.console, output.error_console):
            console._buffer.clear()  # what an earlier test's broken stream has not taken
        monkeypatch.setattr(sys, "argv", ["dlp", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Done(code, captured.out, captured.err)

    return dlp_


@pytest.fixture
def plugin(tmp_path: Path) -> Any:
    """A function that writes a plug-in file; what it registers is forgotten afterwards."""
    before = {kind: dict(kind._components) for kind in KINDS}

    def write(text: str) -> Path:
        path = tmp_path / "mine.py"
        path.write_text(dedent(text))
        return path

    yield write
    for kind, components in before.items():
        for name in kind._components.keys() - components.keys():
            if kind._components[name].origin != "dlp-plugins":
                kind.unregister(name)
