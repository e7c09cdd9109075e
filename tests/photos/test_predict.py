"""A run on made photos, used: predictions, the card, the table of pseudo-labels."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from dlp_cli.app import app
from PIL import Image
from sklearn.datasets import load_digits
from typer.testing import CliRunner

import dlp_plugins
from dlp_plugins.datasets._files import decode
from dlp_plugins.datasets.imagefolder import hold_out, imagefolder
from dlp_plugins.embeddings.run import propagate_file
from dlp_plugins.errors import DataError, RunFolderError, UsageError
from dlp_plugins.photos import predict as predicting
from dlp_plugins.photos.embed import embed
from dlp_plugins.photos.gray import to_gray
from dlp_plugins.photos.predict import predict
from dlp_plugins.training.folder import RunFolder

CLASSES = ("zero", "one", "=two")
SIZE = 16


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Digits 0 to 2 as PNG: 8 of each labelled, 30 unlabelled, 15 kept apart in new/."""
    folder = tmp_path_factory.mktemp("photos")
    images, labels = load_digits(n_class=3, return_X_y=True)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        where = f"train/{CLASSES[label]}" if i < 24 else "unlabeled" if i < 54 else "new"
        if i >= 69:
            break
        (folder / where).mkdir(parents=True, exist_ok=True)
        pixels = (image.reshape(8, 8) * 15.9).astype(np.uint8)
        name = f"{CLASSES[label]}-{i:03}.png"
        Image.fromarray(pixels).convert("RGB").resize((24, 24)).save(folder / where / name)
    return folder


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "photos"
    settings = {
        "dataset": {"name": "imagefolder", "root": str(photos), "image_size": SIZE},
        "backbone.width": 8, "training.stage_one_epochs": 8, "training.stage_one_steps": 10,
        "training.stage_two_epochs": 4, "training.batch_size": 24,
        "training.labeled_per_batch": 12, "optimizer.learning_rate": 0.02,
        "graph.k": 5, "dataset.num_labeled": "all",
    }  # fmt: skip
    summary = dlp_plugins.run("digits", out, **settings)
    assert not any("test_error" in key for key in summary)
    return out


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_grey_photos_stay_as_they_are_and_others_become_what_pillow_makes_of_them():
    levels = torch.arange(256, dtype=torch.uint8)[None, None, :, None]
    assert torch.equal(to_gray(levels.expand(1, 3, 256, 2)), levels.expand(1, 1, 256, 2))
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    own = to_gray(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0, 0].numpy()
    pillow = np.array(Image.fromarray(pixels).convert("L"))
    assert np.abs(own.astype(int) - pillow).max() <= 1


def test_the_table_is_what_the_loaded_network_says_of_each_photo(
    photos, run, tmp_path, monkeypatch
):
    monkeypatch.setattr(predicting, "BATCH", 10)  # of the labelled examples, too
    found = predict(run, photos / "new", tmp_path / "t.csv", nearest=2)
    table = rows(tmp_path / "t.csv")
    assert list(table[0]) == ["file", "label", "probability", "nearest_1", "nearest_2"]
    classifier = dlp_plugins.load(run)
    paths = sorted((photos / "new").iterdir())
    images = torch.stack([decode(p.read_bytes(), (SIZE, SIZE)) for p in paths])
    p = classifier.predict_proba(images)
    # a name that a spreadsheet would run as a formula has an apostrophe before it
    assert [r["file"].removeprefix("'") for r in table] == [path.name for path in paths]
    assert [r["label"].removeprefix("'") for r in table] == classifier.predict(images)
    assert np.allclose([float(r["probability"]) for r in table], p.max(axis=1), atol=1e-6)
    assert len(found.files) == len(table) == 15
    right = sum(file.split("-")[0] == found.classes[y] for file, y in zip(
        found.files, found.labels, strict=True))  # fmt: skip
    assert right >= 12
    labelled = [
        f"train/{q.parent.name}/{q.name}" for q in sorted((photos / "train").rglob("*.png"))
    ]
    descriptors = classifier.describe(images)
    own = classifier.describe(
        torch.stack([decode((photos / name).read_bytes(), (SIZE, SIZE)) for name in labelled])
    )
    nearest = (descriptors @ own.T).argmax(axis=1)
    assert [r["nearest_1"] for r in table] == [labelled[i] for i in nearest]


def test_an_index_predicts_by_the_backbone_that_made_it(photos, tmp_path):
    embed(photos / "unlabeled", tmp_path / "x.npy", size=32)
    names = (tmp_path / "x.ids.csv").read_text().splitlines()[1:]
    given = [name for digit in CLASSES for name in names if name.startswith(digit)][::4]
    lines = "".join(f"{name},{name.split('-')[0]}\n" for name in given)
    (tmp_path / "labels.csv").write_text("file,label\n" + lines)
    propagate_file(
        tmp_path / "x.npy", tmp_path / "labels.csv", tmp_path / "t.csv",
        settings=["graph.k=5"], save_index=tmp_path / "i.safetensors",
    )  # fmt: skip
    found = predict(tmp_path / "i.safetensors", photos / "new", tmp_path / "new.csv")
    right = sum(file.split("-")[0] == found.classes[y] for file, y in zip(
        found.files, found.labels, strict=True))  # fmt: skip
    assert right >= 12
    old = predict(tmp_path / "i.safetensors", photos / "unlabeled")
    table = {
        r["id"].removeprefix("'"): r["label"].removeprefix("'") for r in rows(tmp_path / "t.csv")
    }
    same = [table[f] == old.classes[y] for f, y in zip(old.files, old.labels, strict=True)]
    assert np.mean(same) > 0.9
    with pytest.raises(UsageError, match="keeps no labelled examples"):
        predict(tmp_path / "i.safetensors", photos / "new", nearest=1)
    (tmp_path / "x.json").unlink()
    propagate_file(
        tmp_path / "x.npy", tmp_path / "labels.csv", tmp_path / "t.csv", overwrite=True,
        settings=["graph.k=5"], save_index=tmp_path / "i.safetensors",
    )  # fmt: skip
    with pytest.raises(DataError, match="which network made its embeddings"):
        predict(tmp_path / "i.safetensors", photos / "new")


def test_a_run_can_embed_too(photos, run, tmp_path):
    embed(photos / "new", tmp_path / "x.npy", run, flips=False)
    paths = sorted((photos / "new").iterdir())
    images = torch.stack([decode(p.read_bytes(), (SIZE, SIZE)) for p in paths])
    assert np.allclose(
        np.load(tmp_path / "x.npy"), dlp_plugins.load(run).describe(images), atol=1e-5
    )
    record = json.loads((tmp_path / "x.json").read_text())["record"]
    assert record["run"] == str(run.resolve())
    assert record["size"] == [SIZE, SIZE]
    with pytest.raises(UsageError, match="comes with its size"):
        embed(photos / "new", tmp_path / "y.npy", run, size=32)


def test_the_list_that_is_read_and_the_run_are_not_replaced(photos, run, tmp_path):
    listed = tmp_path / "list.csv"
    listed.write_text("file\n" + "".join(f"{p}\n" for p in sorted((photos / "new").iterdir())))
    for out in (listed, run / "pseudo_labels.csv"):
        before = out.read_bytes()
        words = ["predict", str(run), str(listed), "--out", str(out), "--overwrite"]
        result = CliRunner().invoke(app, words)
        assert isinstance(result.exception, UsageError), result.output
        assert "this command reads it" in str(result.exception)
        assert out.read_bytes() == before


def test_bad_photos_are_named_or_left_out(photos, run, tmp_path):
    shutil.copytree(photos / "new", tmp_path / "new")
    for name in ("a.png", "b.png"):
        (tmp_path / "new" / name).write_bytes(b"no")
    with pytest.raises(DataError, match=r"(?s)a\.png.*b\.png"):
        predict(run, tmp_path / "new", tmp_path / "t.csv")
    assert not (tmp_path / "t.csv").exists()
    with pytest.warns(UserWarning, match=r"(?s)a\.png.*b\.png"):
        found = predict(run, tmp_path / "new", tmp_path / "t.csv", bad="skip")
    assert len(found.files) == len(rows(tmp_path / "t.csv")) == 15
    with pytest.raises(RunFolderError, match="no such run folder"):
        predict(tmp_path / "none", tmp_path / "new")
    with pytest.raises(UsageError, match="--overwrite"):
        predict(run, tmp_path / "new", tmp_path / "t.csv")


def test_pseudo_labels_come_with_file_names(photos, run):
    table = rows(run / "pseudo_labels.csv")
    arrays = np.load(run / "pseudo_labels.npz")
    classes = json.loads((run / "model.json").read_text())["classes"]
    assert [int(r["index"]) for r in table] == arrays["index"].tolist()
    assert [r["label"].removeprefix("'") for r in table] == [classes[y] for y in arrays["labels"]]
    given = [r["file"] for r in table if r["given"] == "true"]
    assert len(given) == 24
    assert all(name.startswith("train/") for name in given)
    assert all((photos / r["file"]).is_file() for r in table)


def test_the_card_is_one_that_the_hub_reads(run):
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard.load(run / "README.md")
    assert card.data.library_name == "dlp-plugins"
    assert card.data.pipeline_tag == "image-classification"
    assert "no error was measured" in card.text
    assert "54 training images, of which 24 with a label" in card.text
    assert (run / "recipe.toml").read_text() in card.text


def test_a_readme_of_ones_own_is_neither_replaced_nor_removed(run, tmp_path):
    own = tmp_path / "run"
    shutil.copytree(run, own)
    folder = RunFolder(own)
    assert folder.owns_card()
    folder.check_free(overwrite=True)
    (own / "README.md").write_text("mine")
    assert not folder.owns_card()
    with pytest.raises(RunFolderError, match=r"README\.md, which no run made"):
        folder.check_free(overwrite=True)


def test_the_test_is_optional_and_a_share_can_be_kept_for_it(photos):
    plain = imagefolder(str(photos), SIZE)
    assert plain.test is None
    assert len(plain.train) == len(plain.files) == 54
    shared = imagefolder(str(photos), SIZE, test_share=0.25)
    assert len(shared.test) == 6
    assert len(shared.train) == len(shared.files) == 48
    assert sorted(shared.test.labels.tolist()) == [0, 0, 1, 1, 2, 2]
    names = {path.relative_to(photos).as_posix() for path in shared.test.read.paths}
    assert names | set(shared.files) == set(plain.files)
    assert hold_out([0] * 10 + [1] * 2 + [2], 0.5)[-1] < 12  # the only one of a class stays
    assert hold_out([0, 0, 0], 0.9) == hold_out([0, 0, 0], 0.9)


def test_the_display_says_that_there_is_no_test(photos, tmp_path):
    settings = [
        f"dataset.root={photos}", "dataset.test_share=0", f"dataset.image_size={SIZE}",
        "backbone=small_cnn", "backbone.width=4", "graph.k=5", "training.stage_one_epochs=1",
        "training.stage_one_steps=1", "training.stage_two_epochs=1",
    ]  # fmt: skip
    words = [word for setting in settings for word in ("--set", setting)]
    result = CliRunner().invoke(app, ["run", "photos", *words, "--out", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    assert "none for the test" in result.output
    assert "There are no test images, so there is no test error" in result.output
    assert "test error -" not in result.output
    words = ["run", "photos", *words, "--set", "dataset.num_test=5", "--out", str(tmp_path / "b")]
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, DataError)
    assert "has no test images" in str(result.exception)


def test_the_nearest_examples_are_those_of_the_runs_data(photos, run, tmp_path):
    """A photo that came later shifts the places of all that follow it."""
    added = photos / "train" / CLASSES[0] / "!first.png"
    added.write_bytes(next((photos / "train" / CLASSES[0]).glob("*.png")).read_bytes())
    try:
        with pytest.raises(DataError, match="is not the one that the run was trained on"):
            predict(run, photos / "new", nearest=2)
    finally:
        added.unlink()
