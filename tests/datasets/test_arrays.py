"""Images and vectors in .npy, .npz and .safetensors."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from dlp_plugins.datasets._arrays import read_array
from dlp_plugins.errors import DataError, LabelError
from dlp_plugins.recipe.check import load_recipe
from dlp_plugins.registry import datasets
from dlp_plugins.testing import check_dataset
from dlp_plugins.training.run import run

RNG = np.random.default_rng(0)


def some(shape: tuple[int, ...] = (3, 5, 7), kind: str = "uint8", n: int = 6) -> dict[str, Any]:
    x = RNG.integers(0, 256, (2, n, *shape)).astype(kind)
    y = np.arange(n) % 3
    return {"x_train": x[0], "y_train": y, "x_test": x[1], "y_test": y}


def save(folder: Path, arrays: dict[str, Any], kind: str = "npz") -> str:
    if kind == "npz":
        np.savez(folder / "data.npz", **arrays)
    elif kind == "safetensors":
        save_file(arrays, folder / "data.safetensors")
    else:
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
        return str(folder)
    return str(folder / f"data.{kind}")


@pytest.mark.parametrize("kind", ["npz", "safetensors", "npy"])
@pytest.mark.parametrize("shape", [(3, 5, 7), (4,)])
def test_one_file_or_folder_of_four_arrays(tmp_path, kind, shape):
    arrays = some(shape, "uint8" if len(shape) == 3 else "float32")
    found = datasets.build("arrays", path=save(tmp_path, arrays, kind))
    check_dataset(found)
    assert found.train.images.tolist() == arrays["x_train"].tolist()
    assert found.test.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert found.classes == ("0", "1", "2")
    axes = (0, 2, 3) if len(shape) == 3 else 0
    scaled = arrays["x_train"].astype(np.float64) / (255 if len(shape) == 3 else 1)
    assert found.mean == pytest.approx(scaled.mean(axis=axes))
    assert found.std == pytest.approx(scaled.std(axis=axes))


def test_separate_files_and_other_keys(tmp_path):
    arrays = some()
    np.save(tmp_path / "pictures.npy", arrays["x_train"])
    np.savez(tmp_path / "only.npz", arrays["y_train"])
    np.savez(tmp_path / "rest.npz", images=arrays["x_test"], labels=arrays["y_test"])
    found = datasets.build(
        "arrays",
        path=str(tmp_path / "rest.npz"),
        x_train=str(tmp_path / "pictures.npy"),
        y_train=str(tmp_path / "only.npz"),
        x_test=":images",
        y_test=f"{tmp_path / 'rest.npz'}:labels",
        classes=["a", "b", "c"],
        mean=[0.4] * 3,
        std=[0.2] * 3,
    )
    assert found.train.images.tolist() == arrays["x_train"].tolist()
    assert found.test.images.tolist() == arrays["x_test"].tolist()
    assert (found.classes, found.mean) == (("a", "b", "c"), (0.4,) * 3)


@pytest.mark.parametrize(
    ("stored", "held"),
    [
        ("uint8", torch.uint8), ("uint16", torch.float32), ("float16", torch.float32),
        ("float32", torch.float32), ("float64", torch.float32),
    ],
)  # fmt: skip
def test_images_of_several_types(tmp_path, stored, held):
    arrays = some(kind=stored)
    found = datasets.build("arrays", path=save(tmp_path, arrays)).train
    assert found.dtype == held
    scale = 65535 if stored == "uint16" else 1
    expected = arrays["x_train"].astype(np.float64) / scale
    assert np.allclose(found.images.double().numpy(), expected)


@pytest.mark.parametrize("stored", ["int64", "uint16", "uint64", "bool", "float16", ">f8"])
def test_vectors_of_any_numbers_become_float32(tmp_path, stored):
    arrays = some((4,), stored)
    found = datasets.build("arrays", path=save(tmp_path, arrays)).train
    assert found.images.tolist() == arrays["x_train"].astype(np.float32).tolist()


def test_channels_last_only_where_it_is_said(tmp_path):
    arrays = some((5, 7, 3))
    path = save(tmp_path, arrays)
    found = datasets.build("arrays", path=path, channels_last=True).train
    assert found.images.tolist() == arrays["x_train"].transpose(0, 3, 1, 2).tolist()
    with pytest.warns(UserWarning, match=r"read as 5 channels of 7 x 3.*channels_last = true"):
        assert datasets.build("arrays", path=path).train.shape == (5, 7, 3)


def test_grey_images_need_no_channel(tmp_path):
    assert datasets.build("arrays", path=save(tmp_path, some((5, 7)))).train.shape == (1, 5, 7)


@pytest.mark.parametrize("kind", ["int8", "uint16", "uint64", "float64"])
def test_labels_of_any_whole_numbers(tmp_path, kind):
    arrays = some()
    arrays["y_train"] = arrays["y_train"].astype(kind)[:, None]  # as Keras has them
    found = datasets.build("arrays", path=save(tmp_path, arrays))
    assert found.train.labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_an_unknown_label_is_minus_one(tmp_path):
    arrays = some()
    arrays["y_train"] = [0, 1, -1, -1, 2, -1]
    found = datasets.build("arrays", path=save(tmp_path, arrays))
    assert found.train.labels.tolist() == [0, 1, -1, -1, 2, -1]


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"y_train": [0, 1]}, DataError, "x_train has 6 rows, y_train 2"),
        ({"y_train": np.eye(6)}, LabelError, r"y_train is \[6, 6\]; labels are one whole number"),
        ({"y_train": [0, 1, 0.5, 1, 0, 1]}, LabelError, r"y_train\[2\] is 0\.5; labels are whole"),
        ({"y_train": [0, 1, np.nan, 1, 0, 1]}, LabelError, r"y_train\[2\] is nan"),
        ({"y_train": [0, 1, 10**9, 1, 0, 1]}, LabelError, "which would make 1000000001 classes"),
        ({"y_test": [0, 1, 2, 3, 0, 1]}, LabelError, r"Label 3 of test image 3 is outside 0\.\.2"),
        ({"y_test": [0, 1, 2, -1, 0, 1]}, LabelError, "1 of 6 test images have no label"),
        ({"y_test": list("abcabc")}, DataError, "it holds <U1, not numbers"),
        ({"x_test": np.zeros((6, 3, 5, 8), "uint8")}, DataError, "they must be alike"),
        ({"x_train": np.zeros((6, 3, 5, 7), "int32")}, DataError, "x_train: The inputs must be"),
        ({"x_train": np.zeros(6)}, DataError, r"The inputs must be .* these are \[\] of"),
        ({"x_train": np.zeros((0, 4)), "y_train": []}, DataError, "x_train has no row"),
        ({"x_train": np.full((6, 3, 5, 7), np.nan)}, DataError, "training input 0 holds NaN"),
        ({"x_train": np.full((6, 4), 1e300)}, DataError, "training input 0 holds NaN or infinity"),
        ({"x_train": np.array([{}] * 6)}, DataError, "cannot be read as .npz .*allow_pickle"),
    ],
)
def test_what_is_wrong_with_an_array_is_one_sentence(tmp_path, changes, error, text):
    path = save(tmp_path, {**some(), **changes})
    with pytest.raises(error, match=text):
        datasets.build("arrays", path=path)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, r"set dataset\.path to a file that holds x_train, y_train"),
        ({"path": "none.npz"}, r"none\.npz: there is no such file"),
        ({"path": "data.npz", "x_test": ":x_tset"}, "no 'x_tset' in it. Did you mean 'x_test'"),
        ({"path": "data.npz", "x_test": "images"}, r"images: arrays are read from \.npy"),
        ({"path": "one.npy"}, r"one\.npy must be an \.npz.*dataset\.x_train"),
        ({"path": "folder"}, r"folder/x_train\.npy: there is no such file"),
        ({"path": "data.npz", "mean": [0.5], "std": [0.1]}, "images have 3 channels"),
    ],
)
def test_wrong_names_are_explained(tmp_path, monkeypatch, settings, text):
    save(tmp_path, some())
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=text):
        datasets.build("arrays", **settings)


@pytest.mark.parametrize("kind", ["npz", "safetensors", "npy"])
def test_damaged_files_are_a_sentence(tmp_path, kind):
    path = Path(save(tmp_path, {"x_train": some()["x_train"]}, kind))
    path = path / "x_train.npy" if kind == "npy" else path
    whole = path.read_bytes()
    for at in range(0, 200):
        for damaged in (whole[:at], whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :]):
            path.write_bytes(damaged)
            with contextlib.suppress(DataError):  # some bytes do no harm
                read_array(path, "x_train" if kind != "npy" else None)


def test_a_recipe_on_vectors(tmp_path):
    """Three clusters in eight dimensions, two labels of each: arrays, mlp and noise, end to end."""
    centers = 6 * np.eye(3, 8)
    y = np.arange(150) % 3
    x = centers[y] + np.random.default_rng(1).normal(size=(150, 8))
    path = save(
        tmp_path, {"x_train": x[:120], "y_train": y[:120], "x_test": x[120:], "y_test": y[120:]}
    )
    settings = [
        "dataset=arrays", f"dataset.path={path}", "dataset.num_labeled=6", "backbone=mlp",
        "backbone.hidden=[16, 8]", "augmentation=noise", "graph.k=5", "training.batch_size=20",
        "training.labeled_per_batch=6", "training.stage_one_epochs=3", "training.stage_one_steps=5",
        "training.stage_two_epochs=3", "consistency=fixmatch", "training.channels_last=true",
    ]  # fmt: skip
    summary = run(load_recipe("digits", settings), tmp_path / "run")
    assert summary["test_error"] < 20  # chance is 67


@pytest.mark.parametrize("kind", ["uint16", "float32"])
def test_a_recipe_on_images_of_16_bits_or_floats_that_are_not_square(tmp_path, kind):
    """A bright half, left or right: the network sees the pixels as they were stored."""
    y = np.arange(90) % 2
    x = np.random.default_rng(1).uniform(0, 0.2, (90, 1, 4, 8))
    x[y == 0, ..., :4] += 0.7
    x[y == 1, ..., 4:] += 0.7
    x = (x * (65535 if kind == "uint16" else 1)).astype(kind)
    path = save(
        tmp_path, {"x_train": x[:60], "y_train": y[:60], "x_test": x[60:], "y_test": y[60:]}
    )
    settings = [
        "dataset=arrays", f"dataset.path={path}", "dataset.num_labeled=6", "backbone=mlp",
        "backbone.hidden=[8]", "graph.k=5", "training.batch_size=20", "consistency=fixmatch",
        "training.labeled_per_batch=6", "training.stage_one_epochs=2", "training.stage_one_steps=5",
        "training.stage_two_epochs=1", "training.channels_last=true",
    ]  # fmt: skip
    assert run(load_recipe("digits", settings), tmp_path / "run")["test_error"] < 10


def test_vectors_without_their_augmentation_say_which(tmp_path):
    path = save(tmp_path, some((4,), "float32"))
    settings = ["dataset=arrays", f"dataset.path={path}", "dataset.num_labeled=3", "backbone=mlp"]
    with pytest.raises(DataError, match="set augmentation = 'noise'"):
        run(load_recipe("digits", settings), tmp_path / "run")
