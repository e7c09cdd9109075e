"""What the shell offers: names and keys, without importing anything heavy, and never an error."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from dlp_cli.app import app
from typer.testing import CliRunner

from dlp_plugins.recipe.files import recipe_names
from dlp_plugins.registry import KINDS, solvers


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def offered(line: str) -> list[str]:
    """What the fish shell gets for a line whose last word is being typed."""
    environment = {
        "_DLP_COMPLETE": "complete_fish", "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }  # fmt: skip
    done = CliRunner().invoke(app, [], prog_name="dlp", env=environment)
    assert done.stderr == ""
    return [text.partition("\t")[0] for text in done.stdout.splitlines() if text]


def test_commands() -> None:
    assert {"tune", "new", "cp"} <= set(offered("dlp "))


@pytest.mark.parametrize("command", ["run", "check", "cp", "tune"])
def test_recipes(command: str) -> None:
    assert offered(f"dlp {command} mt_") == [n for n in recipe_names() if n.startswith("mt_")]


def test_recipes_of_ones_own_and_suites() -> None:
    Path("mine.toml").touch()
    Path("sub").mkdir()
    Path("sub/other.toml").touch()
    assert offered("dlp run mine") == ["mine.toml"]
    assert offered("dlp run sub/") == ["sub/other.toml"]
    assert offered("dlp run ./m") == ["./mine.toml"]
    assert offered("dlp run ./sub/") == ["./sub/other.toml"]
    assert {"components", "digits", "mine.toml"} <= set(offered("dlp bench "))


def test_kinds_and_names() -> None:
    every = sorted(kind.kind for kind in KINDS)
    assert offered("dlp new ") == every
    assert offered("dlp list ") == sorted([*every, "recipes", "suites"])
    assert offered("dlp show ") == sorted([*every, "recipes", "settings"])
    assert offered("dlp show solver c") == [n for n in solvers.names() if n.startswith("c")]
    assert "digits" in offered("dlp show recipes ")
    assert "training" in offered("dlp show settings ")
    assert offered("dlp show nonsense ") == []
    assert "coverage" in offered("dlp suggest x.npy --selector ")


def test_settings() -> None:
    assert offered("dlp run digits --set sol") == ["solver.", "solver="]
    assert "seed=" in offered("dlp run digits --set se")
    assert offered("dlp run digits --set ext") == []
    assert offered("dlp run digits --set solver.al") == ["solver.alpha="]
    assert "solver.name=" in offered("dlp run digits --set solver.")
    assert offered("dlp run digits --set training.stage_two_e") == ["training.stage_two_epochs="]
    assert offered("dlp run digits --set solver=po") == [
        "solver=poisson",
        "solver=poisson_mbo",
        "solver=power",
    ]
    assert offered("dlp run digits --set solver.name=pow") == ["solver.name=power"]
    assert offered("dlp run digits --set graph.mutual=") == [
        "graph.mutual=false",
        "graph.mutual=true",
    ]
    assert "training.precision=bfloat16" in offered("dlp run digits --set training.precision=")
    assert offered("dlp bench digits --vary weighter=ent") == ["weighter=entropy"]
    assert offered("dlp tune digits --search graph.k") == ["graph.k="]
    for nonsense in ("nonsense.", "nonsense=", "solver.nonsense=", "a.b.c.d"):
        assert offered(f"dlp run digits --set {nonsense}") == []


def test_what_fails_offers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise OSError("no such disk")

    monkeypatch.setattr("dlp_plugins.recipe.files.recipe_names", broken)
    assert offered("dlp run d") == []


def test_names_are_offered_without_heavy_imports() -> None:
    script = dedent("""
        import os, sys
        from dlp_cli.app import main
        for line in ("dlp run d", "dlp show solver c", "dlp run d --set sol", "dlp new "):
            os.environ |= {"_DLP_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": line}
            sys.argv = ["dlp"]
            try:
                main()
            except SystemExit:
                pass
        heavy = {"torch", "numpy", "faiss", "timm", "scipy", "sklearn"} & set(sys.modules)
        assert not heavy, heavy
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "digits" in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell(shell: str) -> None:
    environment = {**os.environ, "_DLP_COMPLETE": f"source_{shell}"}
    script = "import sys; sys.argv = ['dlp']; from dlp_cli.app import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert "_DLP_COMPLETE=complete_" in done.stdout
    assert "dlp" in done.stdout.split()


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_bash_completes_a_key(tmp_path: Path) -> None:
    program = tmp_path / "dlp"
    code = "import sys; sys.argv[0] = 'dlp'; from dlp_cli.app import main; main()"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c "{code}" "$@"\n')
    program.chmod(0o755)
    script = dedent("""
        source <(_DLP_COMPLETE=source_bash dlp)
        COMP_WORDS=(dlp run digits --set training.stage_two_e); COMP_CWORD=4
        _dlp_completion dlp; echo "${COMPREPLY[@]}"
    """)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["training.stage_two_epochs="], done.stderr
