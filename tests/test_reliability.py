"""docs/reliability.md: every promise names a test that exists, every test of a fault is named."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from places import ROOT

PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
FAULTS = sorted((ROOT / "tests" / "faults").glob("test_*.py"))


def names_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = (node.name for node in tree.body if isinstance(node, ast.FunctionDef))
    return {name for name in found if name.startswith("test_")}


def test_the_tests_that_it_names_exist() -> None:
    files = {ROOT / name for name in re.findall(r"`(tests/[\w/]+\.py)`", PAGE)}
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) > 30
    assert named <= set().union(*map(names_in, files))


def test_it_names_every_test_of_a_fault() -> None:
    assert {name for path in FAULTS for name in names_in(path) if name not in PAGE} == set()
