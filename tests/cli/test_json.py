"""`--json`: one document on standard output, with the fields of docs/json.md and no others."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import ROOT

from dlp_plugins.registry import KINDS

# Objects whose keys are names of things.
MAPS = {"versions": "PACKAGE", "seconds": "PHASE", "settings": "KEY", "bounds": "NAME"}
PLAN = ["plan", "--points", "1k", "--dim", "8", "--classes", "3"]
RATES = {
    "dim": 8, "k": 10, "search": {"exact": 1e-9, "cells": 1e-9}, "edge": 1e-9, "step": 1e-9,
    "spectral": 1e-9, "transform": 1e-9, "refine": 1e-9,
}  # fmt: skip


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sixty points around two centres, every tenth labelled, one of these wrongly."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    truth = np.repeat([0, 1], 30)
    np.save("x.npy", random.normal(size=(60, 4)) + 4 * truth[:, None])
    few = np.where(np.arange(60) % 5 == 0, truth, -1)
    np.save("wrong.npy", np.where(np.arange(60) == 5, 1, few))
    np.save("y.npy", few)
    np.save("truth.npy", truth)
    (tmp_path / "ids.txt").write_text("".join(f"p{i}\n" for i in range(60)))
    (tmp_path / "rates.json").write_text(json.dumps(RATES))
    return tmp_path


def paths(value: Any, prefix: str = "") -> Iterator[str]:
    """Every field below a value, as `classes[].label`; of a map of names one for all."""
    if isinstance(value, dict):
        if name := MAPS.get(prefix.rpartition(".")[2]):
            yield from [f"{prefix}.{name}"] * bool(value)
            return
        for key, inner in value.items():
            yield from paths(inner, f"{prefix}.{key}" if prefix else key)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for item in value:
            yield from paths(item, f"{prefix}[]")
    else:
        yield prefix


def documented(command: str) -> set[str]:
    """The fields of a command's table in docs/json.md."""
    page = (ROOT / "docs/json.md").read_text(encoding="utf-8")
    section = re.search(rf"^## `{command}`\n(.*?)(?=^## |\Z)", page, re.M | re.S)
    assert section, command
    first_cells = re.findall(r"^\| (`.+?`) \|", section[1], re.M)
    return {name for cell in first_cells for name in re.findall(r"`(.+?)`", cell)}


@pytest.fixture
def fields(dlp: Any) -> Any:
    """Runs a command with --json and gives the document; any other output is a failure."""

    def run(*words: str) -> dict[str, Any]:
        done = dlp(*words, "--json")
        assert done.code == 0, done.err
        found = json.loads(done.out, parse_constant=pytest.fail)  # NaN is no JSON
        assert isinstance(found, dict)
        return found

    return run


COMMANDS: dict[str, list[list[str]]] = {
    "dlp list": [["list", "solvers"], ["list", "recipes"], ["list", "suites"]],
    "dlp show": [
        ["show", "solver", "cg"], ["show", "recipe", "digits"], ["show", "settings", "solver"],
        ["show", "settings", "training"],
    ],
    "dlp check": [["check", "digits"], ["check", "digits", "--data"]],
    "dlp doctor": [["doctor"]],
    "dlp plan": [[*PLAN, "--rates", "rates.json"]],
    "dlp suggest": [["suggest", "x.npy", "--out", "t.csv", "--ids", "ids.txt", "--count", "3"]],
    "dlp audit": [
        ["audit", "x.npy", "--labels", "wrong.npy", "--out", "t.csv", "--ids", "ids.txt"],
    ],
    "dlp explain": [
        ["explain", "x.npy", "--labels", "y.npy", "--point", "p7", "--ids", "ids.txt"],
    ],
    "dlp propagate": [
        ["propagate", "x.npy", "--labels", "y.npy", "--out", "t.csv", "--truth", "truth.npy",
         "--auto", "--set", "graph.k=5"],
        ["propagate", "x.npy", "--labels", "y.npy", "--out", "m.csv", "--multi-label"],
    ],
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_the_fields_are_those_of_the_page(command: str, fields: Any, data: Path) -> None:
    found = {path for words in COMMANDS[command] for path in paths(fields(*words))}
    assert found == documented(command)


def test_every_command_with_json_is_on_the_page(dlp: Any) -> None:
    commands = (ROOT / "cli/dlp_cli/commands").glob("[a-z]*.py")
    with_json = {f"dlp {p.stem}" for p in commands if "as_json: JsonOption" in p.read_text()}
    page = (ROOT / "docs/json.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^## `(dlp \w+)`$", page, re.M)) == with_json
    assert set(COMMANDS) == with_json


# -- numbers that the text has too -----------------------------------------------------------------


def test_list_holds_every_name(fields: Any) -> None:
    found = fields("list")
    assert found.keys() == {kind.kind for kind in KINDS} | {"recipes", "suites"}
    assert {s["name"] for s in fields("list", "suites")["suites"]} == set(found["suites"])
    assert "ablation" in found["suites"]
    assert found["solvers"] == fields("list")["solvers"]
    components = fields("list", "solvers")["components"]
    assert [c["name"] for c in components] == found["solvers"]
    assert next(c for c in components if c["name"] == "cg")["usable"] is True


def test_list_of_a_component_that_is_broken_or_not_installed(
    fields: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dlp_plugins.registry import weighters
    from dlp_plugins.weighters.contract import Weighter

    class Half(Weighter):
        def certainty(self, probabilities: Any) -> Any:
            return probabilities[:, 0] * 0 + 0.5

    weighters.register("half", requires=("nowhere",))(Half)
    try:
        (half,) = (c for c in fields("list", "weighters")["components"] if c["name"] == "half")
    finally:
        weighters.unregister("half")
    assert (half["usable"], half["missing"]) == (False, ["nowhere"])
    assert half["install"] == "pip install nowhere"


def test_show_has_bounds_and_defaults_as_numbers(fields: Any) -> None:
    parameters = {p["key"]: p for p in fields("show", "solver", "cg")["parameters"]}
    assert parameters["alpha"]["bounds"] == {"ge": 0, "lt": 1}
    assert parameters["alpha"]["default"] == 0.99
    keys = [s["key"] for t in fields("show", "settings")["tables"] for s in t["settings"]]
    assert "training.stage_two_epochs" in keys
    assert fields("show", "selector", "random")["table"] is None


def test_check_gives_the_settings_that_the_text_gives(fields: Any, dlp: Any) -> None:
    settings = fields("check", "digits", "--set", "solver.alpha=0.5")["settings"]
    lines = dlp("check", "digits", "--set", "solver.alpha=0.5").out.splitlines()[:-1]
    assert [line.partition(" = ")[0] for line in lines] == list(settings)
    assert settings["solver.alpha"] == 0.5


def test_doctor_counts_threads(fields: Any, one_thread: None) -> None:
    found = fields("doctor")
    assert found["devices"]["threads"] == 1
    assert {e["name"] for e in found["extras"]} >= {"amg", "parquet"}


def test_plan_adds_up_what_it_chose(fields: Any, data: Path) -> None:
    found = fields(*PLAN, "--rates", "rates.json")
    chosen = [p["seconds"] for p in found["parts"] if p["chosen"]]
    assert found["seconds"] == pytest.approx(sum(chosen))
    small = fields(*PLAN, "--rates", "rates.json", "--memory", "1KB")
    assert (small["fits"], small["seconds"]) == (False, None)


def test_propagate_gives_the_numbers_of_its_text(fields: Any, dlp: Any, data: Path) -> None:
    words = ["propagate", "x.npy", "--labels", "y.npy", "--truth", "truth.npy", "--out", "t.csv"]
    found = fields(*words)
    text = dlp(*words, "--overwrite").out
    for name, value in {
        "points": 60, "labelled": found["labeled"], "zero vectors": found["zero_vectors"],
        "same as an earlier point": found["duplicates"],
        "points no label reaches": found["unreached"],
        "accuracy": f"{100 * found['quality']['accuracy']:.2f} %",
        "certainty, quartiles": ", ".join(f"{q:.3f}" for q in found["certainty_quartiles"]),
        "points per class": ", ".join(f"{c['label']}: {c['points']}" for c in found["classes"]),
        "graph": f"exact: {found['graph']['edges']:,} edges",
    }.items():  # fmt: skip
        assert re.search(rf"^{name} +{re.escape(str(value))}", text, re.M), (name, text)
    assert (found["labeled"], found["quality"]["points"]) == (12, 48)
    assert sum(c["points"] for c in found["classes"]) == 60


def test_audit_and_suggest_name_points_by_index_and_id(fields: Any, data: Path) -> None:
    audit = fields(*COMMANDS["dlp audit"][0])
    first = audit["likely_wrong"][0]
    assert (first["index"], first["id"], first["label"], first["suggested"]) == (5, "p5", 1, 0)
    assert first["doubt"] >= 0.5
    assert first["against_ids"] == [f"p{row}" for row in first["against"]]
    chosen = fields(*COMMANDS["dlp suggest"][0], "--overwrite")["chosen"]
    assert [c["id"] for c in chosen] == [f"p{c['index']}" for c in chosen]


@pytest.mark.parametrize(
    "words",
    [
        ["list", "solvrs"], ["show", "solver", "cgg"], ["show", "settings", "solvr"],
        ["check", "digits", "--set", "solver.alpha=2"], [*PLAN[:-1], "many"],
        ["propagate", "x.npy", "--labels", "none.csv", "--out", "t.csv"],
        ["audit", "x.npy", "--labels", "none.csv", "--out", "t.csv"],
        ["suggest", "none.npy", "--out", "t.csv"],
    ],
    ids=lambda words: " ".join(words[:3]),
)  # fmt: skip
def test_errors_stay_on_standard_error(words: list[str], dlp: Any, data: Path) -> None:
    plain, as_json = dlp(*words), dlp(*words, "--json")
    assert as_json.code == plain.code != 0
    assert as_json.out == ""
    assert as_json.err == plain.err
