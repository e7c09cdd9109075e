"""The wheel, in an environment that holds nothing else of the project."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from places import ROOT

QUICK = [
    "--set", "dataset.num_train=100", "--set", "dataset.num_test=20", "--set", "backbone.width=4",
    "--set", "training.stage_one_epochs=1", "--set", "training.stage_two_epochs=1",
    "--set", "training.stage_one_steps=1", "--device", "cpu",
]  # fmt: skip


def run(*command: str | Path, folder: Path) -> str:
    done = subprocess.run([*map(str, command)], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The programs of a new environment with the wheel; of the rest, torch and all, it borrows."""
    pytest.importorskip("hatchling", reason="builds the wheel; `make test` installs it")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, ROOT, folder=tmp_path)
    (wheel,) = tmp_path.glob("dlp_plugins-*.whl")
    home = tmp_path / "environment"
    venv.create(home)
    run(*pip, "--python", home, "install", "--no-deps", "--no-index", wheel, folder=tmp_path)
    own = sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)})
    # Added behind the environment's own packages, without the editable install that is there too.
    (Path(own) / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return home / "bin"


@pytest.mark.commands
def test_digits_runs_from_the_wheel(bin_folder: Path, tmp_path: Path) -> None:
    where = run(
        bin_folder / "python", "-c", "import dlp_plugins; print(dlp_plugins.__file__)",
        folder=tmp_path,
    )  # fmt: skip
    assert Path(where.strip()).is_relative_to(bin_folder.parent)
    out = run(bin_folder / "dlp", "run", "digits", *QUICK, folder=tmp_path)
    assert "with label propagation" in out
    summary = json.loads((tmp_path / "runs/digits-seed0/summary.json").read_text())
    assert 0 <= summary["test_error"] <= 100
