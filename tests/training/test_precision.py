"""Precision and memory format where the recipe leaves them to the device."""

from __future__ import annotations

import json

import pytest
import torch

from dlp_plugins.errors import RunFolderError
from dlp_plugins.recipe.check import load_recipe
from dlp_plugins.training import precision
from dlp_plugins.training.run import run

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SMALL = (
    "dataset.num_train=200", "dataset.num_test=60", "backbone.width=4",
    "training.stage_one_epochs=1", "training.stage_one_steps=2", "training.stage_two_epochs=1",
)  # fmt: skip


@pytest.fixture
def bfloat16(monkeypatch):
    """A function that says whether devices have bfloat16 from now on."""

    def be(there: bool) -> None:
        monkeypatch.setattr(precision, "has_bfloat16", lambda device: there)

    return be


@pytest.mark.parametrize(
    ("device", "has", "settings", "expected"),
    [
        (CPU, True, [], ("bfloat16", True)),
        (CPU, False, [], ("float32", True)),
        (CUDA, True, [], ("bfloat16", True)),
        (CUDA, False, [], ("float32", False)),
        (CUDA, True, ["training.precision=tf32"], ("tf32", True)),
        (CPU, True, ["training.precision=float32"], ("float32", True)),
        (CPU, True, ["training.channels_last=false"], ("bfloat16", False)),
    ],
)
def test_auto_takes_what_is_fast_on_the_device(device, has, settings, expected, bfloat16):
    bfloat16(has)
    recipe = precision.resolve(load_recipe("digits", settings), device)
    assert (recipe.training.precision, recipe.training.channels_last) == expected


def test_a_resume_elsewhere_computes_as_the_start_did_or_is_refused(bfloat16, tmp_path):
    automatic, folder = load_recipe("digits"), tmp_path / "run"
    bfloat16(True)
    low = precision.as_record(precision.resolve(automatic, CPU))
    bfloat16(False)
    plain = precision.as_record(precision.resolve(automatic, CPU))
    with pytest.raises(RunFolderError, match="bfloat16 instructions, which this one lacks"):
        precision.resumed(automatic, low, CPU, folder)
    asked = load_recipe("digits", ["training.precision=bfloat16"])  # emulated, if the user wants it
    assert precision.resumed(asked, low, CPU, folder).training.precision == "bfloat16"
    bfloat16(True)
    assert precision.resumed(automatic, plain, CPU, folder).training.precision == "float32"
    with pytest.raises(RunFolderError, match=r"environment\.json"):
        precision.resumed(automatic, {"precision": "float7"}, CPU, folder)


def test_a_run_records_what_it_computes_with_and_resumes_with_it(bfloat16, tmp_path):
    folder, recipe = tmp_path / "run", load_recipe("digits", SMALL)
    bfloat16(False)
    run(recipe, folder, device="cpu")
    written = json.loads((folder / "environment.json").read_text())
    assert written["computation"] == {"precision": "float32", "channels_last": True}
    assert 'precision = "auto"' in (folder / "recipe.toml").read_text()
    (folder / "summary.json").unlink()
    bfloat16(True)
    seen = []
    run(recipe, folder, device="cpu", resume=True, listeners=[seen.append])
    assert seen[0].device.endswith(", float32")
