"""Things to report: a finished run of the digits, a table with its files, results of a bench."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dlp_plugins.training.run import run

TINY = {
    "dataset.num_train": 120, "dataset.num_test": 50, "dataset.num_labeled": 30,
    "backbone.width": 4, "training.stage_one_epochs": 1, "training.stage_one_steps": 2,
    "training.stage_two_epochs": 2, "training.batch_size": 20, "training.labeled_per_batch": 10,
    "graph.k": 5,
}  # fmt: skip


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """The folder of a tiny run; not to be changed."""
    folder = tmp_path_factory.mktemp("finished") / "tiny"
    run("digits", folder, device="cpu", **TINY)
    return folder


@pytest.fixture
def bench(tmp_path) -> Path:
    folder = tmp_path / "bench-digits"
    folder.mkdir()
    rows = [
        {"row": "solver=cg", "published": [5.0, 0.5], "failures": [],
         "values": {"test_error": [4.0, 6.0], "seconds": [1.0, 2.0]}},
        {"row": "solver=<b>", "published": None, "failures": ["seed 1: <i>out of memory</i>"],
         "values": {"test_error": [8.0], "seconds": [1.5]}},
    ]  # fmt: skip
    receipt = {"command": "dlp bench digits", "description": "", "environment": {"python": "3"}}
    (folder / "results.json").write_text(json.dumps({**receipt, "rows": rows}))
    return folder


@pytest.fixture
def table(tmp_path) -> dict[str, Path]:
    """A table of 80 points in two classes, of which six are labelled wrongly, and its files."""
    from PIL import Image

    random = np.random.default_rng(0)
    truth = np.repeat([0, 1], 40)
    x = random.normal(0, 1, (80, 6)).astype(np.float32) + 4 * truth[:, None]
    labels = truth.copy()
    labels[[3, 4, 5, 43, 44, 45]] ^= 1
    images = tmp_path / "images"
    images.mkdir()
    names = [f"{i:02}.png" for i in range(80)]
    for name in names:
        pixels = random.integers(0, 256, (120, 100, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / name)
    classes = ["<script>alert(1)</script>", "$\\frac$ & dog"]
    files = {name: tmp_path / name for name in ("t.csv", "x.npy", "y.csv", "truth.csv")}
    np.save(files["x.npy"], x)
    certainty = np.where(labels == truth, 0.9, 0.3)
    rows = [f"{i},{names[i]},{classes[labels[i]]},{certainty[i]}" for i in range(80)]
    files["t.csv"].write_text("index,id,label,certainty\n" + "\n".join(rows) + "\n")
    given = [f"{names[i]},{classes[truth[i] ^ (i == 0)]}" for i in range(0, 80, 4)]
    files["y.csv"].write_text("id,label\n" + "\n".join(given) + "\n")
    true = [f"{names[i]},{classes[truth[i]]}" for i in range(80)]
    files["truth.csv"].write_text("id,label\n" + "\n".join(true) + "\n")
    return {"images": images, **{path.stem: path for path in files.values()}}
