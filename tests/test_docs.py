"""What the documents tell a reader to type works."""

from __future__ import annotations

import itertools
import re
import shlex

import pytest
from dlp_cli.__main__ import app
from places import ROOT
from typer.testing import CliRunner

from dlp_plugins.registry import load_plugin_file, solvers
from dlp_plugins.testing import check_solver

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
RECIPES = list((ROOT / "recipes").rglob("*.toml"))


@pytest.fixture
def neumann(tmp_path):
    """The solver of CONTRIBUTING.md, saved as the page says."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.S)
    code = next(b for b in blocks if "my_solver.py" in b)
    path = tmp_path / "my_solver.py"
    path.write_text(re.sub(r"^   ", "", code, flags=re.M))
    load_plugin_file(path)
    yield path
    solvers.unregister("neumann")


def test_the_solver_of_the_contributing_page_passes_its_check(neumann):
    check_solver(solvers.build("neumann", alpha=0.9))


def test_the_solver_of_the_contributing_page_is_shown(neumann):
    result = CliRunner().invoke(app, ["show", "solver", "neumann"])
    assert result.exit_code == 0
    assert "terms" in result.output


def commands(text: str) -> list[str]:
    """`dlp ...` lines of code blocks and recipe headers, without comments."""
    found = re.findall(r"^(?:# +)?(dlp (?:run|check|bench) [^\n#`]+)", text, re.M)
    return [c.strip() for c in found if "FOLDER" not in c and "--plugin" not in c]


@pytest.mark.parametrize("path", [*PAGES, *RECIPES], ids=lambda p: p.name)
def test_every_recipe_and_option_named_exists(path):
    for command in commands(path.read_text()):
        _, verb, target, *options = shlex.split(command)
        if "my_" in command or "usb" in target or "--resume" in options:
            continue
        if verb == "bench":
            from dlp_plugins.bench.suite import find_suite, suite_of_recipe

            varied = [o for flag, o in itertools.pairwise(options) if flag == "--vary"]
            assert find_suite(target) or suite_of_recipe(target, varied).cells
            continue
        settings = [o for flag, o in itertools.pairwise(options) if flag == "--set"]
        overrides = [word for s in settings for word in ("--set", s)]
        result = CliRunner().invoke(app, ["check", target, *overrides])
        assert result.exit_code == 0, f"{command}: {result.output}"
