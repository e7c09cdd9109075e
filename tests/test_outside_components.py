"""The registry reaches every part: a whole run, made of nothing but a third party's components."""

from __future__ import annotations

import numpy as np
import pytest
from places import ROOT

from dlp_plugins import registry
from dlp_plugins.embeddings.suggest import suggest_file
from dlp_plugins.recipe.check import load_recipe, parts_of
from dlp_plugins.training.load import load
from dlp_plugins.training.run import run

FILE = ROOT / "dlp_plugins/scaffold/minimal.py"
RECIPE = """
description = "Nothing but outside components"
{parts}
[[tracker]]
name = "outside"
[dataset]
name = "outside"
num_labeled = 4
[training]
stage_one_epochs = 3
stage_one_steps = 5
stage_two_epochs = 3
batch_size = 20
labeled_per_batch = 4
"""

NOT_IN_A_RECIPE = {"selectors"}


@pytest.fixture
def plugin():
    registry.load_plugin_file(FILE)
    yield
    for kind in registry.KINDS:
        kind.unregister("outside")


def test_a_recipe_of_outside_components_alone_trains(plugin, tmp_path):
    missing = [kind.kind for kind in registry.KINDS if "outside" not in kind.names()]
    assert missing == [], "a new kind joins dlp_plugins/scaffold/minimal.py"
    keys = {key for key, _ in parts_of(load_recipe("digits"))} - {"dataset", "tracker"}
    path = tmp_path / "outside.toml"
    path.write_text(RECIPE.format(parts="\n".join(f'{key} = "outside"' for key in sorted(keys))))
    recipe = load_recipe(path)
    assert {part.name for _, part in parts_of(recipe)} == {"outside"}
    assert len(list(parts_of(recipe))) == len(registry.KINDS) - len(NOT_IN_A_RECIPE)

    summary = run(recipe, tmp_path / "run")
    assert summary["test_error"] < 10
    assert summary["pseudo_label_accuracy"] > 90
    lines = (tmp_path / "run/trackers/errors.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == list("012345")
    assert load(tmp_path / "run").classes == ("left", "right")


def test_an_outside_selector_chooses_points(plugin, tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(9, 3)))
    found = suggest_file(tmp_path / "x.npy", tmp_path / "o.csv", count=2, selector="outside")
    assert found.tolist() == [8, 7]
