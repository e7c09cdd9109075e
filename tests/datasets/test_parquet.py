"""Parquet files of encoded images, written by pyarrow as the hub's are."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dlp_plugins.datasets import _parquet
from dlp_plugins.errors import DataError, LabelError, MissingDependency
from dlp_plugins.registry import datasets

RNG = np.random.default_rng(0)


def png(side: int = 9) -> bytes:
    buffer = io.BytesIO()
    pixels = RNG.integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, labels, image: str = "picture", classes=None, **columns) -> None:
    """classes: by column, declared as the library `datasets` does. columns: further ones."""
    rows = [{"bytes": png(), "path": f"{i}.png"} for i in range(len(labels))]
    table = pa.table({image: rows, "label": labels, **columns})
    if classes:
        features = {c: {"_type": "ClassLabel", "names": names} for c, names in classes.items()}
        metadata = json.dumps({"info": {"features": {image: {"_type": "Image"}, **features}}})
        table = table.replace_schema_metadata({"huggingface": metadata})
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table, path, row_group_size=4)


def write_both(folder: Path, labels, **options) -> None:
    for split in ("train", "test"):
        write(folder / f"{split}.parquet", labels, **options)


def test_a_folder_in_several_files_with_the_names_of_the_classes(tmp_path):
    classes = {"label": ["a", "b", "c"]}
    write(tmp_path / "train-00000-of-00002.parquet", [0, 1, 2, 0, 1, 2], classes=classes)
    write(tmp_path / "train-00001-of-00002.parquet", [0, None, -1], classes=classes)
    write(tmp_path / "test-00000-of-00001.parquet", [0, 1, 2], classes=classes)
    found = datasets.build("parquet", path=str(tmp_path), image_size=9)
    assert found.classes == ("a", "b", "c")
    assert found.train.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, -1, -1]
    held = pq.read_table(tmp_path / "train-00001-of-00002.parquet")["picture"][2].as_py()["bytes"]
    pixels = np.asarray(Image.open(io.BytesIO(held))).transpose(2, 0, 1)
    assert found.train.load().images[8].tolist() == pixels.tolist()


def test_a_struct_of_bytes_and_path_needs_no_metadata_and_no_names(tmp_path):
    write_both(tmp_path, [1, 0, 1], id=["x", "y", "z"], size=[3, 3, 3])
    found = datasets.build("parquet", path=str(tmp_path))
    assert found.classes == ("0", "1")
    assert found.train.labels.tolist() == [1, 0, 1]


def test_it_does_not_import_the_library_datasets(tmp_path, monkeypatch):
    write_both(tmp_path, [0, 1])
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert len(datasets.build("parquet", path=str(tmp_path)).train) == 2


def test_images_may_be_a_column_of_bytes(tmp_path):
    table = pa.table({"jpg": [png(), png()], "animal": ["dog", "cat"]})
    for split in ("train", "validation"):
        pq.write_table(table, tmp_path / f"{split}.parquet")
    found = datasets.build("parquet", path=str(tmp_path), test_split="validation")
    assert found.classes == ("cat", "dog")
    assert found.train.labels.tolist() == [1, 0]


def test_files_in_the_only_sub_folder_are_found(tmp_path):
    write_both(tmp_path / "plain_text", [0, 1])
    assert len(datasets.build("parquet", path=str(tmp_path)).train) == 2
    write_both(tmp_path / "other", [0, 1])
    with pytest.raises(DataError, match=r"2 folders with Parquet files.*Set dataset\.path"):
        datasets.build("parquet", path=str(tmp_path))


@pytest.mark.parametrize("side", [8, [6, 12]])
def test_images_are_brought_to_one_size(tmp_path, side):
    write_both(tmp_path, [0, 1])
    found = datasets.build("parquet", path=str(tmp_path), image_size=side)
    height, width = (side, side) if isinstance(side, int) else side
    assert found.train[0].shape == found.train.shape == (3, height, width)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"train_split": "trian"}, "no split 'trian'; it has test, train"),
        ({"image_column": "pictur"}, "no column 'pictur'.*mean 'picture'.*It has picture, label"),
        ({"image_column": "label"}, "column 'label' holds int64, not encoded images"),
        ({"label_column": "y"}, "no column 'y'"),
        ({"path": "nowhere"}, r"no folder nowhere.*train-\*\.parquet"),
    ],
)
def test_wrong_names_are_explained(tmp_path, settings, text):
    write_both(tmp_path, [0, 1, 2])
    with pytest.raises(DataError, match=text):
        datasets.build("parquet", **{"path": str(tmp_path), **settings})


def test_two_columns_of_classes_must_be_chosen_from(tmp_path):
    names = ["a", "b"]
    write_both(tmp_path, [0, 1], fine=[1, 0], coarse=[0, 1], classes={"fine": names})
    assert datasets.build("parquet", path=str(tmp_path)).train.labels.tolist() == [1, 0]
    write_both(
        tmp_path, [0, 1], fine=[1, 0], coarse=[0, 1], classes={"fine": names, "coarse": names}
    )
    with pytest.raises(DataError, match=r"2 columns that may hold the labels.*label_column"):
        datasets.build("parquet", path=str(tmp_path))


@pytest.mark.parametrize(
    ("train", "test", "error", "text"),
    [
        (["a", "b"], ["a", "c"], LabelError, "label 'c' of split test is no class"),
        ([0.5, 1.0], [0.5, 1.0], LabelError, "neither whole numbers nor text, 0.5 for one"),
        ([0, -5], [0, 1], DataError, "1 classes; a classifier needs two"),
        ([-1, -1], [0, 1], DataError, "0 classes"),
        ([0, 1], [0, 7], LabelError, "Label 7 of test image 1"),
    ],
)
def test_unfit_labels_are_explained(tmp_path, train, test, error, text):
    write(tmp_path / "train.parquet", train)
    write(tmp_path / "test.parquet", test)
    with pytest.raises(error, match=text):
        datasets.build("parquet", path=str(tmp_path), label_column="label")


def test_a_file_that_a_row_names_is_not_opened(tmp_path):
    (tmp_path / "secret.png").write_bytes(png())
    rows = [{"bytes": None, "path": str(tmp_path / "secret.png")}, {"bytes": png(), "path": None}]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table({"image": pa.array(rows, kind), "label": [0, 1]})
    for split in ("train", "test"):
        pq.write_table(table, tmp_path / f"{split}.parquet")
    with pytest.raises(DataError, match=r"split train: image 0 cannot be read.*holds no bytes"):
        datasets.build("parquet", path=str(tmp_path))


def test_unreadable_images_are_numbered(tmp_path):
    write(tmp_path / "train.parquet", [0, 1])
    table = pa.table({"picture": [png()[:40], b"%!PS-Adobe-3.0 EPSF-3.0\n"], "label": [0, 1]})
    pq.write_table(table, tmp_path / "test.parquet")
    found = datasets.build("parquet", path=str(tmp_path))
    with pytest.raises(DataError, match=r"2 of 2(.|\n)*split test: image 0 (.|\n)*image 1.*BMP"):
        found.test.load()


def test_empty_folders_and_damaged_files_are_explained(tmp_path):
    with pytest.raises(DataError, match="holds no Parquet file"):
        datasets.build("parquet", path=str(tmp_path))
    write_both(tmp_path, [0, 1])
    whole = (tmp_path / "train.parquet").read_bytes()
    for at in range(0, len(whole), 97):
        damaged = bytearray(whole)
        damaged[at] ^= 255
        (tmp_path / "train.parquet").write_bytes(damaged)
        with contextlib.suppress(DataError):  # bytes that no page needs do no harm
            datasets.build("parquet", path=str(tmp_path))
    (tmp_path / "train.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match=r"split 'train'.*cannot be read"):
        datasets.build("parquet", path=str(tmp_path))


def test_images_that_memory_cannot_hold_are_refused(tmp_path, monkeypatch):
    write_both(tmp_path, [0, 1])
    free = type("Memory", (), {"available": 100})
    monkeypatch.setattr(_parquet.psutil, "virtual_memory", lambda: free)
    with pytest.raises(DataError, match=r"GiB are free.*imagefolder"):
        datasets.build("parquet", path=str(tmp_path))


def test_without_pyarrow_the_command_that_installs_it_is_shown(tmp_path, monkeypatch):
    found = _parquet.importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda n, *a: None if n == "pyarrow" else found(n, *a)
    )
    for name in ("parquet", "cifar10"):
        with pytest.raises(MissingDependency, match="pip install 'pyarrow>=16'"):
            datasets.build(name, path=str(tmp_path))


def test_the_cifars_take_a_folder_and_keep_their_statistics(tmp_path):
    names = [f"class {i}" for i in range(10)]
    write_both(tmp_path / "ten", list(range(10)), image="img", classes={"label": names})
    found = datasets.build("cifar10", path=str(tmp_path / "ten"))
    assert found.classes == tuple(names)
    assert found.train.shape == (3, 32, 32)
    assert found.mean == (0.4914, 0.4822, 0.4465)
    fine = list(range(100))
    classes = {"fine_label": [str(i) for i in fine], "label": ["a"]}
    write_both(tmp_path / "hundred", [0] * 100, fine_label=fine, classes=classes)
    found = datasets.build("cifar100", path=str(tmp_path / "hundred"))
    assert found.train.labels.tolist() == fine
    with pytest.raises(DataError, match=r"1 classes; a classifier needs two"):
        datasets.build("cifar10", path=str(tmp_path / "hundred"))
