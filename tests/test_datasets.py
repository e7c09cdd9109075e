"""Data sets, on small data in the layout of the real ones."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
import torchvision
from PIL import Image

from dlp_plugins.datasets import LazyImages, TensorImages
from dlp_plugins.errors import DataError
from dlp_plugins.recipe import load_recipe
from dlp_plugins.registry import datasets
from dlp_plugins.training.run import run

CIFAR = Path(os.environ.get("DLP_TEST_CIFAR10", Path(__file__).parents[2] / "shared/data/cifar10"))
real_cifar = pytest.mark.skipif(not CIFAR.is_dir(), reason="no CIFAR-10 at DLP_TEST_CIFAR10")
RNG = np.random.default_rng(0)


def test_digits_are_split_the_same_way_every_time():
    one, other = datasets.build("digits"), datasets.build("digits")
    assert one.train.images.equal(other.train.images)
    assert (len(one.train), len(one.test)) == (1347, 450)
    assert one.train.shape == (1, 8, 8)
    assert one.train.images.max() == 255
    assert torch.bincount(one.test.labels).min() >= 43  # stratified
    scaled = one.train.images.double() / 255
    assert one.mean[0] == pytest.approx(scaled.mean().item())


# -- torchvision's, in miniature; its checksums are of the real files and so are set aside ---------


@pytest.fixture
def no_checksums(monkeypatch):
    for cls in (torchvision.datasets.CIFAR10, torchvision.datasets.STL10):
        monkeypatch.setattr(cls, "_check_integrity", lambda self: True)
    for module in ("cifar", "svhn", "stl10"):
        path = f"torchvision.datasets.{module}.check_integrity"
        monkeypatch.setattr(path, lambda path, md5=None: Path(path).exists())


def cifar_files(
    root: Path, folder: str, names: dict[str, int], key: str, classes: int
) -> np.ndarray:
    (root / folder).mkdir()
    pixels = RNG.integers(0, 256, (sum(names.values()), 3072), dtype=np.uint8)
    start = 0
    for name, count in names.items():
        entry = {"data": pixels[start : start + count], key: [i % classes for i in range(count)]}
        (root / folder / name).write_bytes(pickle.dumps(entry))
        start += count
    return pixels.reshape(-1, 3, 32, 32)


def test_cifar10(tmp_path, no_checksums):
    names = {f"data_batch_{i}": 20 for i in range(1, 6)} | {"test_batch": 10}
    pixels = cifar_files(tmp_path, "cifar-10-batches-py", names, "labels", 10)
    meta = {"label_names": [f"class {i}" for i in range(10)]}
    (tmp_path / "cifar-10-batches-py" / "batches.meta").write_bytes(pickle.dumps(meta))
    found = datasets.build("cifar10", root=str(tmp_path))
    assert found.train.images.numpy().tolist() == pixels[:100].tolist()
    assert found.test.labels.tolist() == list(range(10))
    assert found.classes[3] == "class 3"
    assert found.mean == (0.4914, 0.4822, 0.4465)


def test_cifar100(tmp_path, no_checksums):
    pixels = cifar_files(
        tmp_path, "cifar-100-python", {"train": 200, "test": 100}, "fine_labels", 100
    )
    meta = {"fine_label_names": [f"class {i}" for i in range(100)]}
    (tmp_path / "cifar-100-python" / "meta").write_bytes(pickle.dumps(meta))
    found = datasets.build("cifar100", root=str(tmp_path))
    assert found.num_classes == 100
    assert found.test.images.numpy().tolist() == pixels[200:].tolist()


def test_svhn(tmp_path, no_checksums):
    for name, count in {"train": 30, "test": 10, "extra": 20}.items():
        x = RNG.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        y = np.arange(1, count + 1).reshape(-1, 1) % 10
        scipy.io.savemat(tmp_path / f"{name}_32x32.mat", {"X": x, "y": np.where(y == 0, 10, y)})
    found = datasets.build("svhn", root=str(tmp_path))
    assert found.train.images.shape == (30, 3, 32, 32)
    assert found.train.labels[9] == 0  # the file's 10 is the digit 0
    assert len(datasets.build("svhn", root=str(tmp_path), extra=True).train) == 50


def test_stl10_unlabelled_images_have_no_label(tmp_path, no_checksums):
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    for name, count in {"train": 20, "test": 10, "unlabeled": 30}.items():
        RNG.integers(0, 256, count * 3 * 96 * 96, dtype=np.uint8).tofile(folder / f"{name}_X.bin")
        if name != "unlabeled":
            (np.arange(count, dtype=np.uint8) % 10 + 1).tofile(folder / f"{name}_y.bin")
    (folder / "class_names.txt").write_text("\n".join(f"class {i}" for i in range(10)))
    found = datasets.build("stl10", root=str(tmp_path))
    assert len(found.train) == 50
    assert found.train.labels[:20].tolist() == [i % 10 for i in range(20)]
    assert (found.train.labels[20:] == -1).all()
    assert found.train.shape == (3, 96, 96)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn", "stl10"])
def test_missing_data_say_exactly_how_to_get_them(name, tmp_path):
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match=r"dataset.download=true.*dataset.root=FOLDER"):
            datasets.build(name, root=str(root))


# -- folders ---------------------------------------------------------------------------------------


def draw(path: Path, size: tuple[int, int] = (40, 30), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = size[::-1] if mode == "L" else (*size[::-1], len(mode))
    Image.fromarray(RNG.integers(0, 256, shape, dtype=np.uint8), mode).save(path)


@pytest.fixture
def folder(tmp_path) -> Path:
    for split, count in {"train": 6, "test": 2}.items():
        for cls in ("cat", "dog"):
            for i in range(count):
                draw(tmp_path / split / cls / f"{i}.png", mode="L" if i == 0 else "RGB")
    return tmp_path


def test_imagefolder(folder):
    draw(folder / "unlabeled" / "deep" / "x.jpg")
    found = datasets.build("imagefolder", root=str(folder), image_size=16)
    assert found.classes == ("cat", "dog")
    assert isinstance(found.train, LazyImages)
    assert found.train.labels.tolist() == [0] * 6 + [1] * 6 + [-1]
    assert found.train.shape == (3, 16, 16)
    assert len(found.test) == 4


def test_files_are_read_alike_one_by_one_and_all_at_once(folder):
    lazy = datasets.build("imagefolder", root=str(folder)).train
    held = lazy.load()
    assert isinstance(held, TensorImages)
    assert pickle.loads(pickle.dumps(lazy.read))(3).equal(held.images[3])
    assert held.images.nbytes == lazy.nbytes


@pytest.mark.parametrize("memory_mb", [0, 10])
def test_imagefolder_trains_from_memory_and_from_disk(folder, tmp_path, memory_mb):
    settings = [
        "dataset=imagefolder", f"dataset.root={folder}", "dataset.num_labeled=4", "graph.k=3",
        f"training.image_memory_mb={memory_mb}", "backbone.width=4", "training.stage_one_epochs=1",
        "training.stage_two_epochs=1", "training.batch_size=6", "training.labeled_per_batch=2",
    ]  # fmt: skip
    summary = run(load_recipe("digits", settings), tmp_path / "run")
    assert 0 <= summary["test_error"] <= 100


def test_an_unreadable_image_is_named(folder):
    (folder / "train" / "cat" / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"broken\.png cannot be read as an image.*Remove or mend"):
        datasets.build("imagefolder", root=str(folder)).train.load()


def test_a_truncated_image_is_named(folder):
    path = folder / "train" / "dog" / "1.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"1\.png cannot be read"):
        datasets.build("imagefolder", root=str(folder)).train.load()


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda f: (f / "test").rename(f / "tset"), "there is no folder .*test"),
        (lambda f: (f / "train" / "dog").rename(f / "dog"), "1 class folders"),
        (lambda f: draw(f / "test" / "horse" / "0.png"), "no class of the training.*horse"),
        (lambda f: [p.unlink() for p in (f / "test").rglob("*.png")], "no image in"),
    ],
)
def test_a_wrong_layout_is_explained(folder, spoil, text):
    spoil(folder)
    with pytest.raises(DataError, match=rf"{text}.*ROOT/train/<class>"):
        datasets.build("imagefolder", root=str(folder))


def test_mini_imagenet(tmp_path):
    for split in ("train", "test"):
        for i in range(100):
            draw(tmp_path / split / f"n{i:03}" / "0.png", size=(84, 84))
    found = datasets.build("mini_imagenet", root=str(tmp_path))
    assert (found.num_classes, found.train.shape) == (100, (3, 84, 84))
    assert found.mean == (0.4721, 0.4533, 0.4100)


def test_mini_imagenet_says_how_to_lay_it_out(folder):
    for root in (folder, folder / "nowhere"):
        with pytest.raises(DataError, match="ROOT/train/<class>"):
            datasets.build("mini_imagenet", root=str(root))


# -- Hugging Face ----------------------------------------------------------------------------------


def write_parquet(path: Path, count: int, labels: list | None = None) -> None:
    hf = pytest.importorskip("datasets")
    images = [
        Image.fromarray(RNG.integers(0, 256, (9, 9, 3), dtype=np.uint8)) for _ in range(count)
    ]
    columns = {"picture": images, "label": labels or [i % 3 for i in range(count)]}
    features = hf.Features({"picture": hf.Image(), "label": hf.ClassLabel(names=["a", "b", "c"])})
    hf.Dataset.from_dict(columns, features=features).to_parquet(str(path))


def test_a_local_folder_of_parquet_files(tmp_path):
    write_parquet(tmp_path / "train-00000-of-00002.parquet", 6)
    write_parquet(tmp_path / "train-00001-of-00002.parquet", 3)
    write_parquet(tmp_path / "test-00000-of-00001.parquet", 3)
    found = datasets.build("huggingface", path=str(tmp_path), image_size=9)
    assert len(found.train) == 9
    assert found.classes == ("a", "b", "c")
    assert found.train.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"train_split": "trian"}, "no split 'trian'; it has test, train"),
        ({"image_column": "img"}, "no column 'img'; it has picture, label"),
    ],
)
def test_wrong_names_in_a_parquet_folder_are_explained(tmp_path, settings, text):
    for split in ("train", "test"):
        write_parquet(tmp_path / f"{split}.parquet", 3)
    with pytest.raises(DataError, match=text):
        datasets.build("huggingface", path=str(tmp_path), **settings)


def test_an_empty_folder_and_a_damaged_file_are_explained(tmp_path):
    with pytest.raises(DataError, match="holds no parquet file"):
        datasets.build("huggingface", path=str(tmp_path))
    (tmp_path / "train.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match="cannot be loaded"):
        datasets.build("huggingface", path=str(tmp_path))


def test_a_hub_name_without_a_network_is_explained(monkeypatch):
    pytest.importorskip("datasets")

    def refuse(path):
        raise ConnectionError("Couldn't reach the hub")

    monkeypatch.setattr("datasets.load_dataset", refuse)
    with pytest.raises(DataError, match="a hub name with a network"):
        datasets.build("huggingface", path="nobody/nothing")


@real_cifar
def test_a_small_recipe_on_real_cifar10_lowers_its_error(tmp_path):
    pytest.importorskip("datasets")
    settings = [f"dataset.path={CIFAR}", "dataset.num_train=1500", "dataset.num_test=500"]
    few = ["training.stage_one_epochs=4", "training.stage_two_epochs=2", "backbone.width=16"]
    recipe = load_recipe("quick_cifar10", [*settings, *few, "training.stage_one_steps=25"])
    run(recipe, tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    errors = [json.loads(line)["test_error"] for line in lines]
    assert errors[-1] < errors[0]
    assert errors[-1] < 80  # chance is 90
