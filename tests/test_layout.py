"""The house: imports run one way, and the package's top holds few loose files."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import ROOT

from dlp_plugins.registry import KINDS

PACKAGE = ROOT / "dlp_plugins"
MOST_LOOSE_FILES = 14

# From the foundation up; a room may import rooms of its own level or below.
LEVELS = [
    {"errors", "units", "notebook"},
    {"_threads", "_semilearn", "_files", "component", "environment", "inputs", "processes"},
    {"registry", "graph", "network"},
    {kind.kind for kind in KINDS} - {"sources", "selectors"},
    {"propagation", "doctor"},  # doctor tries the FAISS search of a graph builder
    {"sources", "selectors"},  # they use the propagation, as a recipe's components do
    {"recipe"},
    {"training", "embeddings", "hosts", "photos", "sklearn", "testing", "scaffold"},
    {"bench", "labeling"},
    {"report", "tuning"},
    {"__init__"},
]
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
# A kind's components may share a helper of another kind; they never build one another.
SHARED_HELPERS = {
    ("consistency", "schedules._ramp_up"),
    ("refiners", "solvers._rows"),
    ("refiners", "solvers._local_order"),
}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Full names of the modules that a file imports anywhere."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from names if node.module in ("dlp_plugins", "dlp_cli") else [node.module or ""]


def imported(path: Path) -> Iterator[str]:
    """Modules of the package among them, without `dlp_plugins.`."""
    own = (name for name in imports(path) if name.startswith("dlp_plugins."))
    return (name.removeprefix("dlp_plugins.") for name in own)


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_room_has_a_level():
    assert {room_of(path) for path in FILES} == LEVEL.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    own = room_of(path)
    for module in imported(path):
        other = module.partition(".")[0]
        assert LEVEL[other] <= LEVEL[own], f"{own} imports {module}, which lies above it"
        two_kinds = own != other and LEVEL[own] == LEVEL[other] == LEVEL["solvers"]
        assert not two_kinds or (own, module) in SHARED_HELPERS, f"{own} imports {module}"


def test_nothing_in_the_package_imports_the_command_line():
    for path in FILES:
        assert "dlp_cli" not in path.read_text(encoding="utf-8"), path


def test_no_command_imports_another():
    commands = sorted((ROOT / "cli" / "dlp_cli" / "commands").glob("*.py"))
    assert "run.py" in [path.name for path in commands]
    for path in commands:
        assert [n for n in imports(path) if n.startswith("dlp_cli.commands")] == [], path
        assert "dlp_cli.commands" not in path.read_text(encoding="utf-8"), path


def test_few_files_lie_loose():
    loose = sorted(p.name for p in PACKAGE.glob("*.py"))
    assert len(loose) <= MOST_LOOSE_FILES, loose


def test_every_kind_has_a_contract():
    assert [k.kind for k in KINDS if not (PACKAGE / k.kind / "contract.py").is_file()] == []
