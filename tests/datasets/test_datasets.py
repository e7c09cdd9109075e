"""Data sets, on small data in the layout of the real ones."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import pickle
import struct
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
import torchvision
from PIL import Image, ImageOps
from places import SHARED

from dlp_plugins._files.scratch import unnamed_array
from dlp_plugins.datasets import Dataset, LazyImages, TensorImages, _encoded, _files
from dlp_plugins.datasets._files import FORMATS, FileReader, decode
from dlp_plugins.datasets._statistics import measure
from dlp_plugins.errors import DataError, LabelError
from dlp_plugins.recipe.check import load_recipe
from dlp_plugins.registry import datasets
from dlp_plugins.training.batches import ImageStore
from dlp_plugins.training.run import run
from dlp_plugins.training.splits import select

CIFAR = Path(os.environ.get("DLP_TEST_CIFAR10", SHARED / "data" / "cifar10"))
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


@pytest.mark.parametrize(("memory_mb", "disk_mb"), [(10, 10), (0, 10), (0, 0)])
def test_imagefolder_trains_from_memory_a_file_and_by_workers(
    folder, tmp_path, monkeypatch, memory_mb, disk_mb
):
    files = []

    def counted(*arguments):
        files.append(unnamed_array(*arguments))
        return files[-1]

    monkeypatch.setattr("dlp_plugins.training.batches.unnamed_array", counted)
    settings = [
        "dataset=imagefolder", f"dataset.root={folder}", "dataset.num_labeled=4", "graph.k=3",
        f"training.image_memory_mb={memory_mb}", f"training.image_disk_mb={disk_mb}",
        "training.workers=1", "backbone.width=4", "training.stage_one_epochs=1",
        "training.stage_two_epochs=1", "training.batch_size=6", "training.labeled_per_batch=2",
    ]  # fmt: skip
    summary = run(load_recipe("digits", settings), tmp_path / "run")
    assert len(files) == (2 if memory_mb < disk_mb else 0)  # of training and test images
    assert 0 <= summary["test_error"] <= 100


def test_an_unreadable_image_is_named(folder):
    (folder / "train" / "cat" / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(
        DataError, match=r"broken\.png cannot be read as an image.*Remove or replace"
    ):
        datasets.build("imagefolder", root=str(folder)).train.load()


def test_a_truncated_image_is_named(folder):
    path = folder / "train" / "dog" / "1.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"1\.png cannot be read"):
        datasets.build("imagefolder", root=str(folder)).train.load()


def test_all_unreadable_photos_of_both_splits_are_listed_at_once(folder):
    for place in ("train/cat/a.png", "train/dog/b.jpg", "test/cat/c.png"):
        (folder / place).write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"(?s)3 of 19 images.*a\.png .*b\.jpg .*c\.png ") as error:
        datasets.build("imagefolder", root=str(folder))
    assert len(str(error.value).splitlines()) == 4


def test_a_run_from_disk_names_every_unreadable_photo(folder, monkeypatch):
    """Workers read them in every epoch; the first error in one of them is of another process."""
    # How long torch waits for a worker that raised an error.
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)
    lazy = datasets.build("imagefolder", root=str(folder)).train
    for place in ("train/cat/1.png", "train/dog/2.png"):
        (folder / place).write_bytes(b"not a picture")
    store = ImageStore(lazy, torch.device("cpu"), workers=1, memory_mb=0)
    with pytest.raises(DataError, match=r"(?s)^2 of 12 images cannot be read:.*1\.png.*2\.png"):
        list(store.in_order(4))
    gc.collect()  # the loader ends its worker here, not in a later test


def test_files_with_other_endings_are_counted_in_a_warning(folder):
    for name in ("a.heic", "b.HEIC", "notes", ".DS_Store", "Thumbs.db"):
        (folder / "train" / "cat" / name).write_bytes(b"")
    with pytest.warns(UserWarning, match=r"Left out .*: 3 files .*\.heic 2, no ending 1"):
        assert len(datasets.build("imagefolder", root=str(folder)).train) == 12


# -- files of strangers ----------------------------------------------------------------------------


def test_only_the_listed_formats_are_opened(tmp_path):
    """Pillow starts Ghostscript for PostScript, whatever the file's ending."""
    picture = Image.new("RGB", (9, 9))
    for kind in ("EPS", "DDS", "GIF"):
        (tmp_path / "x.png").write_bytes(encode(picture, kind))
        with pytest.raises(DataError, match=r"x\.png cannot be read.*none of BMP, JPEG, PNG"):
            FileReader((tmp_path / "x.png",), (9, 9))(0)
    for kind in FORMATS:
        (tmp_path / "x.png").write_bytes(encode(picture, kind))
        assert FileReader((tmp_path / "x.png",), (9, 9))(0).shape == (3, 9, 9)


def test_pipes_devices_and_folders_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    for path in tmp_path.iterdir():
        with pytest.raises(DataError, match="it is not a regular file"):
            FileReader((path,), (9, 9))(0)
    with pytest.raises(DataError, match="No such file"):
        FileReader((tmp_path / "none.png",), (9, 9))(0)


def test_a_huge_image_is_refused_by_its_header():
    header = encode(Image.new("L", (1, 1)), "PNG")
    size = struct.pack(">II", 9000, 9000)
    crc = struct.pack(">I", zlib.crc32(header[12:16] + size + header[24:29]))
    with pytest.raises(ValueError, match="9000 x 9000 pixels, more than 67,108,864"):
        decode(header[:16] + size + header[24:29] + crc + header[33:], (9, 9))


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda f: (f / "train").rename(f / "trian"), "there is no folder .*train"),
        (lambda f: (f / "train" / "dog").rename(f / "dog"), "1 class folders"),
        (lambda f: draw(f / "test" / "horse" / "0.png"), "no class of the training.*horse"),
        (lambda f: [p.unlink() for p in (f / "test").rglob("*.png")], "no image in"),
    ],
    ids=["no train", "one class", "unknown class", "empty"],
)
def test_a_wrong_layout_is_explained(folder, spoil, text):
    spoil(folder)
    with pytest.raises(DataError, match=rf"{text}.*ROOT/train/<class>"):
        datasets.build("imagefolder", root=str(folder))


def test_a_class_without_an_image_is_named(folder):
    (folder / "train" / "horse").mkdir()
    with pytest.raises(DataError, match=r"There is no image in .*horse \(1 such"):
        datasets.build("imagefolder", root=str(folder))


def test_a_class_may_be_called_unlabeled(folder):
    draw(folder / "train" / "unlabeled" / "0.png")
    found = datasets.build("imagefolder", root=str(folder))
    assert found.classes == ("cat", "dog", "unlabeled")
    assert found.train.labels.tolist() == [0] * 6 + [1] * 6 + [2]


def encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_an_image_is_read_as_its_middle_square_upright():
    # left half red, right half blue, a green bar on top; 60 wide and 40 high
    pixels = np.zeros((40, 60, 3), dtype=np.uint8)
    pixels[:, :30, 0] = pixels[:, 30:, 2] = 255
    pixels[:10] = (0, 255, 0)
    image = Image.fromarray(pixels)
    for data in (encode(image, "PNG"), encode(image, "JPEG", quality=95, subsampling=0)):
        small = decode(data, (20, 20))
        assert small.shape == (3, 20, 20)
        assert small.dtype == torch.uint8
        for row, column, color in ((2, 10, 1), (12, 4, 0), (12, 16, 2)):
            assert small[:, row, column].argmax() == color
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held so that the picture must be turned clockwise
    for kind in ("PNG", "JPEG"):
        small = decode(encode(image, kind, exif=turned), (20, 20))
        assert small[:, 10, 17].argmax() == 1  # the bar is on the right


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(10))
def test_an_image_is_turned_as_pillow_turns_it(kind, orientation):
    pixels = np.zeros((16, 16, 3), dtype=np.uint8)
    pixels[:8, :8, 0] = pixels[:8, 8:, 1] = pixels[8:, :8, 2] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(pixels), kind, exif=exif)
    expected = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    assert np.array_equal(decode(data, (16, 16)).permute(1, 2, 0).numpy(), expected)


def test_odd_exif_does_not_make_an_image_unreadable():
    # the orientation is fine, and another entry holds text where a number belongs
    odd = (
        b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x03\x01\x01\x00\x02\x00\x00\x00\x06"
        b"\x00\x00\x002\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x87i\x00\x04"
        b"\x00\x00\x00\x01\x00\x00\x008\x00\x00\x00\x00maker\x00\x00\x01\x90\x03\x00\x02"
        b"\x00\x00\x00\x05\x00\x00\x00J\x00\x00\x00\x002020\x00\x00"
    )
    pixels = np.zeros((16, 16, 3), dtype=np.uint8)
    pixels[:4] = 255
    data = encode(Image.fromarray(pixels), "JPEG", exif=odd)
    with pytest.raises(struct.error):
        ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert decode(data, (16, 16))[0, 8, 14] > 200  # turned clockwise: the bar is on the right
    broken = odd.replace(b"MM\x00*", b"XX\x00*")
    assert decode(encode(Image.fromarray(pixels), "JPEG", exif=broken), (16, 16))[0, 1, 8] > 200


def test_an_image_is_brought_to_other_proportions_by_its_middle():
    pixels = np.zeros((40, 60, 3), dtype=np.uint8)
    pixels[:, 20:40, 0] = 255
    upright = decode(encode(Image.fromarray(pixels), "PNG"), (20, 10))
    assert upright.shape == (3, 20, 10)
    assert upright[0].min() == 255  # the middle 20 of 60 columns
    flat = decode(encode(Image.fromarray(pixels), "PNG"), (10, 30))
    assert (flat[0] > 127).sum(dim=1).tolist() == [10] * 10  # all 60 columns


def test_sixteen_bits_are_scaled_and_floats_refused():
    values = np.linspace(0, 65535, 256).reshape(16, 16)
    found = decode(encode(Image.fromarray(values.astype(np.uint16)), "PNG"), (16, 16))
    assert found[0].flatten().tolist() == pytest.approx(np.arange(256), abs=1)
    with pytest.raises(ValueError, match="save it with 8 bits"):
        decode(encode(Image.fromarray(values.astype(np.float32)), "TIFF"), (16, 16))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_damage_anywhere_is_a_clear_error_or_harmless(tmp_path, kind):
    data = encode(Image.fromarray(RNG.integers(0, 256, (24, 24, 3), dtype=np.uint8)), kind)
    path = tmp_path / "x"
    for cut in range(0, len(data) - 20, 37):
        path.write_bytes(data[:cut])
        with pytest.raises(DataError, match="x cannot be read as an image"):
            FileReader((path,), (24, 24))(0)
    for _ in range(60):
        damaged = bytearray(data)
        for at in RNG.integers(0, len(data), 6):
            damaged[at] = RNG.integers(0, 256)
        path.write_bytes(bytes(damaged))
        with contextlib.suppress(DataError):
            assert FileReader((path,), (24, 24))(0).shape == (3, 24, 24)


def test_channel_statistics_are_those_of_the_pixels():
    pixels = torch.from_numpy(RNG.integers(0, 256, (10, 3, 6, 6), dtype=np.uint8))
    images = LazyImages(pixels.__getitem__, torch.zeros(10, dtype=torch.long), (3, 6, 6))
    flat = pixels.double().div(255).transpose(0, 1).flatten(1)
    mean, std = measure(images)
    assert mean == pytest.approx(flat.mean(dim=1).tolist())
    assert std == pytest.approx(flat.std(dim=1, unbiased=False).tolist())


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"classes": ("a",)}, DataError, "1 classes; a classifier needs two"),
        ({"mean": (0.5, 0.5)}, DataError, "images have 1 channels"),
        ({"std": (0.0,)}, DataError, "std above 0"),
        ({"train": []}, DataError, "training split holds no image"),
        ({"test": []}, DataError, "test split holds no image"),
        ({"train": [0, 2]}, LabelError, r"Label 2 of training image 1 is outside 0\.\.1"),
        ({"test": [0, -2]}, LabelError, "Label -2 of test image 1"),
        ({"test": [0, -1]}, LabelError, "1 of 2 test images have no label"),
    ],
)
def test_what_no_training_could_use_is_refused(changes, error, text):
    def images(labels):
        return TensorImages(torch.zeros(len(labels), 1, 4, 4, dtype=torch.uint8), labels)

    good = {"train": [0, 1, -1], "test": [0, 1], "classes": ("a", "b"), "mean": (0.5,), "std": (1,)}
    given = {**good, **changes}
    for split in ("train", "test"):
        given[split] = images(torch.tensor(given[split], dtype=torch.long))
    with pytest.raises(error, match=text):
        Dataset(**given)


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


def test_a_hub_name_without_a_network_is_explained(monkeypatch):
    pytest.importorskip("datasets")

    def refuse(path, config):
        raise ConnectionError("Couldn't reach the hub")

    monkeypatch.setattr("datasets.load_dataset", refuse)
    with pytest.raises(DataError, match="a hub name with a network"):
        datasets.build("huggingface", path="nobody/nothing")


def hub(monkeypatch, picture: dict, names: list[str] | None = None) -> None:
    """Let the hub serve two splits of two such pictures."""
    hf = pytest.importorskip("datasets")
    label = hf.ClassLabel(names=names) if names else hf.Value("int64")
    features = hf.Features({"picture": hf.Image(), "label": label})
    columns = {"picture": [picture] * 2, "label": [0, 1]}
    split = hf.Dataset.from_dict(columns, features=features)
    monkeypatch.setattr(
        "datasets.load_dataset", lambda path, config: {"train": split, "test": split}
    )


def test_a_data_set_of_the_hub(monkeypatch):
    red = encode(Image.new("RGB", (9, 9), (255, 0, 0)), "PNG")
    hub(monkeypatch, {"bytes": red, "path": None}, ["cat", "dog"])
    found = datasets.build("huggingface", path="somebody/pictures", image_size=8)
    assert found.classes == ("cat", "dog")
    assert found.train.labels.tolist() == [0, 1]
    assert found.train[0].flatten(1).float().mean(dim=1).tolist() == [255, 0, 0]
    with pytest.raises(DataError, match="no split 'trian'; it has train, test"):
        datasets.build("huggingface", path="somebody/pictures", train_split="trian")


def test_a_file_that_a_row_of_the_hub_names_is_not_opened(monkeypatch, folder):
    path = folder / "train" / "cat" / "1.png"
    hub(monkeypatch, {"bytes": None, "path": str(path)})
    with pytest.raises(DataError, match=r"2 of 2 images cannot be read:\n.*holds no bytes"):
        datasets.build("huggingface", path="somebody/pictures")


def test_a_folder_is_not_a_hub_name(tmp_path):
    pytest.importorskip("datasets")
    with pytest.raises(DataError, match="read by dataset parquet"):
        datasets.build("huggingface", path=str(tmp_path))


@real_cifar
def test_real_cifar10_has_its_classes_and_statistics():
    found = datasets.build("cifar10", path=str(CIFAR))
    assert (len(found.train), len(found.test), found.num_classes) == (50_000, 10_000, 10)
    assert torch.bincount(found.train.labels).tolist() == [5000] * 10
    assert found.classes[:2] == ("airplane", "automobile")
    mean, std = measure(found.train)
    assert mean == pytest.approx(found.mean, abs=0.01)
    assert std == pytest.approx(found.std, abs=0.01)
    first = select(found.train, torch.arange(300)).load()
    assert first.images.shape == (300, 3, 32, 32)


@real_cifar
def test_a_small_recipe_on_real_cifar10_lowers_its_error(tmp_path):
    settings = [
        f"dataset.path={CIFAR}", "dataset.num_train=600", "dataset.num_test=400",
        "dataset.num_labeled=300", "training.stage_one_epochs=3", "training.stage_two_epochs=2",
        "training.stage_one_steps=25", "training.batch_size=50", "training.labeled_per_batch=25",
        "backbone.width=8",
    ]  # fmt: skip
    recipe = load_recipe("quick_cifar10", settings)
    run(recipe, tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    errors = [json.loads(line)["test_error"] for line in lines]
    assert errors[-1] < errors[0]
    assert errors[-1] < 80  # chance is 90


def test_hidden_files_and_folders_are_no_images(tmp_path):
    for name in ("a.png", "._a.png", ".thumbs/b.png", "c/.d.png", "c/e.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    left_out = Counter()
    found = _files.list_images(tmp_path, left_out)
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["a.png", "c/e.png"]
    assert not left_out


def test_blank_text_and_minus_one_are_no_classes():
    labels = _encoded._known(["cat", "", "dog", None, "-1", " "])
    assert _encoded._find_classes(labels, "x") == ["cat", "dog"]
    found = _encoded._numbers(labels, ["cat", "dog"], "x", "train")
    assert found.tolist() == [0, -1, 1, -1, -1, -1]
