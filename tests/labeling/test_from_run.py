"""`dlp label RUN`: a run's images, its network's descriptors, and the labels it was given."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from dlp_plugins.errors import DataError, RunFolderError, UsageError
from dlp_plugins.labeling.from_run import open_run
from dlp_plugins.labeling.run import prepare_labeling
from dlp_plugins.report.from_run import read_run
from dlp_plugins.training.load import load
from dlp_plugins.training.run import run

TINY = {
    "dataset.num_train": 100, "dataset.num_test": 10, "dataset.num_labeled": 30,
    "backbone.width": 4, "training.stage_one_epochs": 1, "training.stage_one_steps": 2,
    "training.stage_two_epochs": 1, "training.batch_size": 20, "training.labeled_per_batch": 10,
    "graph.k": 5,
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "tiny"
    run("digits", folder, device="cpu", **TINY)
    return folder


def test_the_page_of_a_run_starts_from_its_labels_and_shows_its_images(finished, tmp_path):
    job = prepare_labeling(finished, state=tmp_path / "labels.sqlite")
    session = job.open()
    try:
        summary = session.summary()
        assert (summary["points"], summary["labelled"]) == (100, 30)
        assert [c["name"] for c in summary["classes"]] == [str(i) for i in range(10)]
        card = session.cards("ann", "useful", 1)[0]
        assert card["given"] is None
        with Image.open(io.BytesIO(session.images.thumbnail(card["point"]))) as shown:
            place = int(session.ids.values[card["point"]])
            assert np.array_equal(np.asarray(shown), pixels(place))
        session.answer("ann", {card["point"]: card["version"]}, 3)
        assert session.summary()["labelled"] == 31
    finally:
        session.close()


def pixels(place: int) -> np.ndarray:
    from dlp_plugins import registry

    return registry.datasets.build("digits").train.images[place, 0].numpy()


def test_descriptors_are_those_of_the_runs_network(finished):
    opened = open_run(finished)
    rows = opened.descriptors.load()
    images = opened.descriptors.images.images[torch.from_numpy(opened.descriptors.index)]
    expected = torch.nn.functional.normalize(torch.from_numpy(load(finished).describe(images)))
    assert torch.allclose(rows, expected, atol=1e-6)
    given = json.loads((finished / "labeled_indices.json").read_text())["labeled_indices"]
    known = [int(v) for v, y in zip(opened.ids.values, opened.known.labels, strict=True) if y >= 0]
    assert sorted(known) == sorted(given)


def test_images_that_the_run_left_out_are_not_there_and_not_in_the_report(tmp_path):
    images, labels = load_digits(n_class=2, return_X_y=True)
    for i, (image, label) in enumerate(zip(images[:60], labels[:60], strict=True)):
        folder = tmp_path / "data" / ("train" if i < 48 else "test") / "ab"[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image.reshape(8, 8) * 15).astype(np.uint8)).save(folder / f"{i:02}.png")
    damaged = [next((tmp_path / "data" / split / "b").iterdir()) for split in ("train", "test")]
    for path in damaged:
        path.write_bytes(b"no image")
    out = tmp_path / "run"
    tiny = {key: value for key, value in TINY.items() if "num_t" not in key}
    data = {"name": "imagefolder", "root": str(tmp_path / "data"), "image_size": 8}
    with pytest.warns(UserWarning, match="Left out: "):
        run("digits", out, **tiny | {"dataset": data | {"unreadable": "skip", "num_labeled": 10}})
    opened = open_run(out)
    assert len(opened.descriptors.load()) == len(opened.ids.values) == 47
    assert not any(damaged[0].name in str(name) for name in opened.ids.values)
    found = read_run(out, "run")
    assert len(found.test) == 11
    assert len(found.embedded.descriptors) == 47


def test_what_cannot_be_labelled_is_refused(finished, tmp_path):
    with pytest.raises(UsageError, match="leave out --images"):
        prepare_labeling(finished, images=tmp_path)
    with pytest.raises(RunFolderError):
        prepare_labeling(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    for path in finished.rglob("*"):
        if path.is_file():
            copy = other / path.relative_to(finished)
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(path.read_bytes())
    record = json.loads((other / "labeled_indices.json").read_text())
    record["data"]["training images"] = "another"
    (other / "labeled_indices.json").write_text(json.dumps(record))
    with pytest.raises(DataError, match="is not the one"):
        prepare_labeling(other)
