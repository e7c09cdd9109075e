"""`dlp new`: the package of every kind is well formed, keeps its contract, installs and runs."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from dlp_cli.app import app
from places import ROOT
from typer.testing import CliRunner

from dlp_plugins import testing
from dlp_plugins.errors import SaveError, UsageError
from dlp_plugins.registry import KINDS, Registry, solvers, weighters
from dlp_plugins.scaffold.package import package_for, write_package

NAME = "my-own.2"
SHORT = [
    "training.stage_one_epochs=1", "training.stage_one_steps=2", "training.stage_two_epochs=1",
    "training.batch_size=20", "training.labeled_per_batch=10", "dataset.num_labeled=20",
]  # fmt: skip


def named(kind: Registry) -> list[str]:
    return [f"--set={kind.singular}={NAME}"]


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    for kind in KINDS:
        kind.unregister(NAME)
    for module in [m for m in sys.modules if m.startswith("dlp_") and m.endswith("_my_own_2")]:
        del sys.modules[module]


def pip_install(target: Path, *packages: Path) -> None:
    """Without network; the build backend is the one that is installed."""
    pytest.importorskip("hatchling", reason="builds packages; `make test` installs it")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(target)]
    done = subprocess.run([*pip, *options, *map(str, packages)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_a_package_of_each_kind_keeps_its_contract(
    kind: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = package_for(kind.kind, NAME)
    write_package(package, tmp_path / "p")
    project = tomllib.loads((tmp_path / "p/pyproject.toml").read_text())["project"]
    assert project["name"] == package.distribution == f"dlp-{kind.singular}-my-own-2"
    where = f"{package.module}:{package.symbol}"
    assert project["entry-points"] == {kind.group: {NAME: where}}
    monkeypatch.syspath_prepend(str(tmp_path / "p"))
    importlib.import_module(package.module)
    assert kind.find(NAME).summary
    assert kind.find(NAME).factory.__name__ == package.symbol
    getattr(testing, f"check_{kind.singular}")(NAME)
    scope: dict[str, object] = {}
    exec((tmp_path / f"p/tests/test_{package.module}.py").read_text(), scope)
    assert f"check_{kind.singular}" in scope


def test_the_code_is_clean(tmp_path: Path) -> None:
    for kind in KINDS:
        write_package(package_for(kind.kind, NAME), tmp_path / kind.kind)
    # which import is the package's own depends on the folder that ruff is run in
    for words in (["check", "--ignore=I001"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *words, "--config", str(ROOT / "pyproject.toml")]
        done = subprocess.run([*ruff, str(tmp_path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@pytest.mark.commands  # pip
def test_one_installs_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = CliRunner().invoke(app, ["new", "weighter", NAME])
    assert made.exit_code == 0
    assert f"dlp run digits --set weighter={NAME}" in made.stdout
    pip_install(tmp_path / "site", tmp_path / "dlp-weighter-my-own-2")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    listed = CliRunner().invoke(app, ["list", "weighters", "--json"])
    (own,) = (c for c in json.loads(listed.stdout)["components"] if c["name"] == NAME)
    assert (own["origin"], own["usable"]) == ("dlp-weighter-my-own-2", True)
    words = ["run", "digits", f"--set=weighter={NAME}", "--device=cpu", "--set=backbone.width=4"]
    sizes = ["--set=dataset.num_train=120", "--set=dataset.num_test=50"]
    done = CliRunner().invoke(app, [*words, *sizes, *(f"--set={s}" for s in SHORT)])
    assert done.exit_code == 0, done.output
    assert NAME in (tmp_path / "runs/digits-seed0/recipe.toml").read_text()


@pytest.mark.slow  # builds seventeen packages and runs them: half a minute of one core
def test_all_kinds_install_and_run_together(tmp_path: Path) -> None:
    packages = []
    for kind in KINDS:
        package = package_for(kind.kind, NAME)
        packages.append(tmp_path / package.distribution)
        write_package(package, packages[-1])
    pip_install(tmp_path / "site", *packages)
    path = os.pathsep.join([str(tmp_path / "site"), str(ROOT), str(ROOT / "cli")])
    environment = {**os.environ, "PYTHONPATH": path}

    def python(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=tmp_path, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    tests = [str(p) for package in packages for p in package.glob("tests/*.py")]
    assert len(tests) == 17
    # away from their folders' own code, and from this suite's settings
    python("pytest", "-q", "-c", os.devnull, "--import-mode=importlib", *tests)
    listed = json.loads(python("dlp_cli", "list", "--json"))
    assert all(NAME in listed[kind.kind] for kind in KINDS)
    parts = [w for kind in KINDS if kind.kind not in ("selectors", "trackers") for w in named(kind)]
    tracker = f'--set=tracker=[{{name="{NAME}"}}]'
    settings = [f"--set={s}" for s in SHORT]
    python("dlp_cli", "run", "digits", *parts, tracker, *settings, "--out", "run")
    assert len((tmp_path / "run/trackers/errors.txt").read_text().splitlines()) == 2
    recipe = tomllib.loads((tmp_path / "run/recipe.toml").read_text())
    chosen = {key for key, part in recipe.items() if NAME in str(part)}
    assert chosen == {kind.singular for kind in KINDS} - {"selector"}
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(9, 3)))
    python("dlp_cli", "suggest", "x.npy", "--out", "s.csv", "--count=2", "--selector", NAME)
    assert (tmp_path / "s.csv").read_text().split() == ["index", "8", "7"]


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("solvr", "x", "Did you mean 'solvers'"),
        ("solver", "cg", "is there already"),
        ("solver", "My", "lower-case letters"),
        ("solver", "", "lower-case letters"),
        ("solver", "../x", "lower-case letters"),
        ("solver", "..", "begin and end with a letter"),
        ("solver", "é", "begin and end with a letter"),
    ],
)
def test_names_that_cannot_be(kind: str, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        package_for(kind, name)


@pytest.mark.parametrize("name", ["1", "class", "solver", "tensor", "print", "a.b-c_d", "tor.ch"])
def test_names_that_python_has_already(name: str) -> None:
    for kind in (solvers, weighters):
        code = package_for(kind.kind, name).files
        (text,) = (t for path, t in code.items() if path.endswith("__init__.py"))
        compile(text, "component", "exec")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    package = package_for("solver", NAME)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    for folder in (tmp_path / "full", tmp_path / "full/mine.txt"):
        with pytest.raises(UsageError, match="is there already"):
            write_package(package, folder)
    with pytest.raises(UsageError, match="there is no folder"):
        write_package(package, tmp_path / "no/x")
    assert [p.name for p in tmp_path.rglob("*")] == ["full", "mine.txt"]
    (tmp_path / "empty").mkdir()
    write_package(package, tmp_path / "empty")
    assert (tmp_path / "empty/pyproject.toml").is_file()


def test_into_the_working_directory_all_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    package = package_for("solver", NAME)
    moves = Path.replace

    def broken_off(self: Path, target: Path) -> Path:
        if target.name == "README.md":
            raise OSError(28, "No space left on device")
        return moves(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", broken_off)
        with pytest.raises(SaveError, match="No space left on device"):
            write_package(package, Path("."))
    assert list(tmp_path.iterdir()) == []
    written = write_package(package, Path("."))
    assert all(path.is_file() for path in written)
    assert {p.name for p in tmp_path.iterdir()} == {path.parts[0] for path in written}


def test_rights_are_what_the_umask_leaves_whatever_the_parents(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    write_package(package_for("solver", NAME), tmp_path / "x")
    (tmp_path / "y").mkdir()
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "y").stat().st_mode


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, *_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(SaveError, match="No space left on device"):
        write_package(package_for("solver", NAME), tmp_path / "p")
    assert list(tmp_path.iterdir()) == []
