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
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", PAGE)
    assert len(named) > 10
    for file, name in named:
        assert name in names_in(ROOT / file), f"{file} has no {name}"
    alone = set(re.findall(r"`(test_\w+)`", PAGE))
    assert alone <= set().union(*map(names_in, FAULTS))
    files = set(re.findall(r"`(tests/[\w/]+\.py)`", PAGE))
    assert all((ROOT / file).is_file() for file in files)


def test_it_names_every_test_of_a_fault() -> None:
    assert {name for path in FAULTS for name in names_in(path) if name not in PAGE} == set()
