"""Exported files compute what the network computes, and say what goes in and comes out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

import dlp_plugins
from dlp_plugins.datasets._files import decode
from dlp_plugins.embeddings.index import load_index
from dlp_plugins.embeddings.run import propagate_file
from dlp_plugins.errors import ComponentError, DlpError, UsageError
from dlp_plugins.photos import export as exporting
from dlp_plugins.photos.embed import embed
from dlp_plugins.photos.export import SUFFIXES, export, read_description
from dlp_plugins.photos.gray import to_gray
from dlp_plugins.photos.predict import open_predictor, predict

FORMATS = [
    pytest.param("onnx", marks=pytest.mark.filterwarnings("ignore")), "torch-export", "safetensors",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "digits"
    settings = {
        "dataset.num_train": 60, "dataset.num_test": 20, "dataset.num_labeled": 20,
        "backbone": {"name": "small_cnn", "width": 4, "weight_norm_heads": "both"},
        "training.stage_one_epochs": 1, "training.stage_one_steps": 1,
        "training.stage_two_epochs": 0,
    }  # fmt: skip
    dlp_plugins.run("digits", out, **settings)
    return out


def make_index(folder: Path, backbone: str | Path, **options) -> tuple[Path, Path]:
    """An index of 40 digits as PNG, and the folder of these."""
    images, labels = load_digits(n_class=2, return_X_y=True)
    (folder / "photos").mkdir()
    for i in range(40):
        pixels = (images[i].reshape(8, 8) * 15.9).astype(np.uint8)
        Image.fromarray(pixels).resize((32, 32)).save(folder / "photos" / f"{labels[i]}-{i}.png")
    embed(folder / "photos", folder / "x.npy", backbone, flips=True, **options)
    names = (folder / "x.ids.csv").read_text().splitlines()[1:]
    lines = "".join(f"{n},class {n[0]}\n" for n in [*names[:3], *names[-3:]])
    (folder / "labels.csv").write_text(f"file,label\n{lines}")
    propagate_file(
        folder / "x.npy", folder / "labels.csv", folder / "t.csv", settings=["graph.k=5"],
        save_index=folder / "i.safetensors",
    )  # fmt: skip
    return folder / "i.safetensors", folder / "photos"


@pytest.fixture(scope="module")
def index(run, tmp_path_factory) -> tuple[Path, Path]:
    """By the run's network of gray images, which is traced in a second."""
    return make_index(tmp_path_factory.mktemp("index"), run)


def needs(format: str) -> None:
    if format == "onnx":
        for package in ("onnx", "onnxruntime", "onnxscript"):
            pytest.importorskip(package)


@pytest.mark.parametrize("format", FORMATS)
def test_of_a_run(format, run, tmp_path):
    needs(format)
    out = tmp_path / f"m{SUFFIXES[format]}"
    assert export(run, out, format) <= 1e-4
    about = read_description(out)
    classifier = dlp_plugins.load(run)
    assert about["classes"] == list(classifier.classes)
    assert about["input"]["shape"] == ["batch", *classifier.shape]
    if format != "onnx":
        return
    import onnxruntime

    session = onnxruntime.InferenceSession(out.read_bytes())
    images = np.random.default_rng(0).integers(0, 256, (7, *classifier.shape), dtype=np.uint8)
    p, descriptors = session.run(None, {"images": images})  # another batch than it was traced with
    assert np.abs(p - classifier.predict_proba(images)).max() < 1e-4
    assert np.abs(descriptors - classifier.describe(images)).max() < 1e-4


@pytest.mark.parametrize("format", FORMATS)
def test_of_an_index(format, index, tmp_path):
    needs(format)
    out = tmp_path / f"m{SUFFIXES[format]}"
    assert export(index[0], out, format) <= 1e-4
    about = read_description(out)
    assert about["classes"] == ["class 0", "class 1"]
    assert about["input"]["shape"] == ["batch", 1, 8, 8]
    assert "gray" in about["input"]["photos"]
    if format != "torch-export":
        return
    found = predict(*index)
    size = (8, 8)
    batch = torch.stack([decode((index[1] / f).read_bytes(), size) for f in found.files])
    p = torch.export.load(out).module()(to_gray(batch))[0]
    assert (p.argmax(dim=1).numpy() == found.labels).mean() > 0.8  # the graph is left out


@pytest.mark.slow
def test_of_an_index_by_the_default_backbone(tmp_path):
    needs("onnx")
    index, _ = make_index(tmp_path, "imagenet-lite", size=32)
    assert export(index, tmp_path / "m.onnx") <= 1e-4
    assert read_description(tmp_path / "m.onnx")["input"]["interpolation"] == "bicubic"


def test_a_file_that_computes_something_else_is_not_kept(run, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting.Exported, "view", lambda self, images: images.float())
    with pytest.raises(ComponentError, match="other probabilities than the network"):
        export(run, tmp_path / "m.safetensors", "safetensors")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_explained(run, index, tmp_path):
    with pytest.raises(UsageError, match=r"\.onnx"):
        export(run, tmp_path / "m.pt2", "onnx")
    with pytest.raises(DlpError, match="no such run folder or index"):
        export(tmp_path / "none", tmp_path / "m.pt2", "torch-export")
    folder = index[0].parent
    propagate_file(
        folder / "x.npy", folder / "labels.csv", tmp_path / "t.csv",
        save_index=tmp_path / "i.safetensors", settings=["graph.k=5", "refiner=none"],
    )  # fmt: skip
    assert load_index(tmp_path / "i.safetensors").classifier is None
    with pytest.raises(UsageError, match="refiner=discriminant"):
        export(tmp_path / "i.safetensors", tmp_path / "m.pt2", "torch-export")


def test_the_ending_says_the_format_and_an_index_takes_no_choice_of_a_run(run, index, tmp_path):
    assert export(run, tmp_path / "m.safetensors") <= 1e-4
    assert read_description(tmp_path / "m.safetensors")["classes"]
    with pytest.raises(UsageError, match=r"\.onnx or \.pt2 or \.safetensors"):
        export(run, tmp_path / "m.bin")
    for choice in ({"network": "teacher"}, {"weights": "best"}):
        with pytest.raises(UsageError, match=f"--{next(iter(choice))}: .* is an index"):
            export(index[0], tmp_path / "i.safetensors", **choice)
        with pytest.raises(UsageError, match=f"--{next(iter(choice))}: .* is an index"):
            open_predictor(index[0], **choice)


def test_nothing_within_the_run_is_replaced(run):
    weights = run / "checkpoint/student.safetensors"
    before = weights.read_bytes()
    with pytest.raises(UsageError, match="this command reads it"):
        export(run, weights, "safetensors", overwrite=True)
    assert weights.read_bytes() == before
