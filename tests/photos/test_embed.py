"""Photos to embeddings: the same numbers as the reference, the same bytes after a kill."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from dlp_cli.app import app
from PIL import Image
from places import ROOT
from sklearn.datasets import load_digits
from typer.testing import CliRunner

from dlp_plugins.datasets._files import decode
from dlp_plugins.embeddings.features import open_embeddings
from dlp_plugins.embeddings.labels import read_labels
from dlp_plugins.embeddings.record import read_record
from dlp_plugins.errors import DataError, RunFolderError, UsageError
from dlp_plugins.photos import describer, source
from dlp_plugins.photos.embed import Embedded, embed
from dlp_plugins.photos.rounding import round_to_bfloat16
from dlp_plugins.registry import backbones

DATA = ROOT.parent / "shared" / "data"
CIFAR = DATA / "cifar10" / "test-00000-of-00001.parquet"
REFERENCE = DATA / "embeddings" / "cifar10_test_lite0.npz"
SIZE = 32
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """50 digits as PNG, a folder a class, and a text file."""
    folder = tmp_path_factory.mktemp("digits")
    images, labels = load_digits(return_X_y=True)
    for i in range(50):
        (folder / str(labels[i])).mkdir(exist_ok=True)
        pixels = (images[i].reshape(8, 8) * 15.9).astype(np.uint8)
        Image.fromarray(pixels).resize((32, 32)).save(folder / str(labels[i]) / f"{i}.png")
    (folder / "notes.txt").write_text("not an image")
    return folder


@pytest.fixture(scope="module")
def whole(digits, tmp_path_factory) -> Path:
    """Their embeddings."""
    out = tmp_path_factory.mktemp("whole") / "x.npy"
    with pytest.warns(UserWarning, match=r"1 file whose ending"):
        embed(digits, out, size=SIZE)
    return out


def cosines(found: np.ndarray, reference: np.ndarray) -> np.ndarray:
    units = [
        x / np.linalg.norm(x, axis=1, keepdims=True)
        for x in (found.astype(np.float64), reference.astype(np.float64))
    ]
    return (units[0] * units[1]).sum(axis=1)


@pytest.mark.skipif(not REFERENCE.is_file() or not CIFAR.is_file(), reason="no ../shared/data")
def test_the_default_is_the_reference_to_a_cosine_of_0_999(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    some = range(0, 5000, 50)  # all of them: make bench-photos
    parquet.write_table(parquet.read_table(CIFAR).take(list(some)), tmp_path / "some.parquet")
    embed(tmp_path / "some.parquet", tmp_path / "x.npy", float16=True)
    found = np.load(tmp_path / "x.npy")
    assert found.dtype == np.float16
    assert cosines(found, np.load(REFERENCE)["x"][some]).min() > 0.999


def test_the_layout_of_what_is_written(digits, whole):
    x, names = np.load(whole), whole.with_name("x.ids.csv").read_text().splitlines()
    assert x.shape == (50, 1280)
    assert x.dtype == np.float32
    assert np.allclose(np.linalg.norm(x, axis=1), 1, atol=1e-5)
    assert names[0] == "file"
    assert names[1:] == sorted(names[1:])
    assert all((digits / name).is_file() for name in names[1:])
    record = read_record(whole)
    assert (record.backbone, record.size, record.interpolation) == (
        "imagenet-lite", (SIZE, SIZE), "bicubic",
    )  # fmt: skip
    assert (record.mean, record.std) == ((0.5,) * 3, (0.5,) * 3)
    assert [p.name for p in whole.parent.iterdir() if "partial" in p.name] == []


def test_rows_are_those_of_the_network_one_by_one(digits, whole):
    network = backbones.build("imagenet-lite").eval()
    names = whole.with_name("x.ids.csv").read_text().splitlines()[1:]
    exact = []
    for name in names[:6]:
        image = decode((digits / name).read_bytes(), (SIZE, SIZE), "bicubic")
        with torch.no_grad():
            exact.append(network((image[None].double() / 127.5 - 1).float())[0].numpy())
    assert cosines(np.load(whole)[:6], np.stack(exact)).min() > 0.98  # bfloat16 against float32
    again = describer.new_describer(size=SIZE, precision="float32", device=CPU)
    images = torch.stack(
        [decode((digits / n).read_bytes(), (SIZE, SIZE), "bicubic") for n in names]
    )
    assert cosines(again(images[:6]).numpy(), np.stack(exact)).min() > 1 - 1e-6


def test_rounding_is_what_autocast_computes():
    g = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (4, 3, 48, 48), dtype=torch.uint8, generator=g)
    images = pixels.float() / 127.5 - 1
    network, rounded = (backbones.build("imagenet-lite").eval() for _ in range(2))
    round_to_bfloat16(rounded)
    with torch.no_grad():
        plain = network(images)
        with torch.autocast("cpu", torch.bfloat16):
            cast = network(images).float()
        found = rounded(images)
    near, far = (1 - cosines(x.numpy(), cast.numpy()).mean() for x in (found, plain))
    assert near < 2e-4
    assert far > 3 * near  # or the test shows nothing


@pytest.mark.commands
def test_killed_and_resumed_the_bytes_are_the_same(digits, whole, tmp_path):
    out = tmp_path / "x.npy"
    code = (
        "import os, sys\n"
        "from dlp_plugins.photos.embed import embed\n"
        "def killed(done):\n"
        "    if done >= 32: os.kill(os.getpid(), 9)\n"
        "embed(sys.argv[1], sys.argv[2], size=int(sys.argv[3]), save_seconds=0, progress=killed)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "cli")])}
    done = subprocess.run(
        [sys.executable, "-c", code, digits, out, str(SIZE)], env=environment, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert not out.exists()
    for name in (".x.npy.partial.json", "x.ids.csv", "x.json"):  # killed while they were written
        (tmp_path / f".{name}.0123456789abcdef.tmp").write_text("half")
    seen: list[int] = []
    made = embed(digits, out, size=SIZE, progress=seen.append)
    assert made.resumed == 16  # two batches were done, of which one was saved
    assert seen[0] == 16
    for name in ("x.npy", "x.ids.csv", "x.json"):
        assert (tmp_path / name).read_bytes() == whole.with_name(name).read_bytes(), name
    left = {p.name for p in tmp_path.iterdir()} - {".x.npy.lock"}
    assert left == {"x.npy", "x.ids.csv", "x.json"}


def test_shards_make_the_same_bytes_and_what_is_missing_is_described(digits, whole, tmp_path):
    out = tmp_path / "x.npy"
    names = whole.with_name("x.ids.csv").read_text().splitlines()[1:]
    for number in (1, 3):
        made = embed(digits, out, size=SIZE, shard=f"{number}/3")
        assert made.out == tmp_path / f"x-0000{number}-of-00003.npy"
        assert open_embeddings(made.out).points == made.points
    assert not out.exists()
    counts = []
    made = embed(digits, out, size=SIZE, progress=counts.append)
    assert made.described == 16
    assert counts == [0, 16, 32, 32, 50]  # a shard of 16, a batch that was missing, one of 18
    for name in ("x.npy", "x.ids.csv", "x.json"):
        assert (tmp_path / name).read_bytes() == whole.with_name(name).read_bytes(), name
    listed = (tmp_path / "x-00003-of-00003.ids.csv").read_text().splitlines()[1:]
    assert listed == names[32:]


def test_shards_of_photos_that_have_changed_are_not_used(digits, tmp_path):
    copy = tmp_path / "photos"
    copy.mkdir()
    for i, path in enumerate(sorted(digits.rglob("*.png"))[:32]):
        (copy / f"{i:02}.png").write_bytes(path.read_bytes())
    embed(copy, tmp_path / "x.npy", size=SIZE, shard="2/2")
    (copy / "20.png").write_bytes((copy / "03.png").read_bytes())
    (tmp_path / "x-00001-of-00002.npy").write_bytes(b"something else")
    embed(copy, tmp_path / "x.npy", size=SIZE)
    x = np.load(tmp_path / "x.npy")
    assert np.allclose(x[20], x[3], atol=0.02)
    for shard in ("0/2", "3/2", "2", "1/9"):
        with pytest.raises(UsageError, match="--shard"):
            embed(copy, tmp_path / "y.npy", size=SIZE, shard=shard)


def stop_after(n: int):
    def progress(done: int) -> None:
        if done >= n:
            raise KeyboardInterrupt

    return progress


def test_what_has_changed_since_is_embedded_again(digits, whole, tmp_path):
    copy = tmp_path / "photos"
    names = whole.with_name("x.ids.csv").read_text().splitlines()[1:]
    for i, name in enumerate(names):
        copy.mkdir(exist_ok=True)
        (copy / f"{i:02}.png").write_bytes((digits / name).read_bytes())
    with pytest.raises(KeyboardInterrupt):
        embed(copy, tmp_path / "x.npy", size=SIZE, save_seconds=0, progress=stop_after(32))
    (copy / "03.png").write_bytes((copy / "20.png").read_bytes())
    made = embed(copy, tmp_path / "x.npy", size=SIZE)
    assert made.resumed == 0
    x = np.load(tmp_path / "x.npy")
    assert np.allclose(x[3], x[20], atol=0.02)  # they stand at another place of their batch
    with pytest.raises(KeyboardInterrupt):
        embed(copy, tmp_path / "y.npy", size=SIZE, save_seconds=0, progress=stop_after(32))
    assert embed(copy, tmp_path / "y.npy", size=SIZE, flips=True).resumed == 0  # another request
    with pytest.raises(KeyboardInterrupt):
        embed(copy, tmp_path / "z.npy", size=SIZE, save_seconds=0, progress=stop_after(32))
    assert embed(copy, tmp_path / "z.npy", size=SIZE, float16=True).resumed == 0
    assert np.isfinite(np.load(tmp_path / "z.npy")).all()


def test_bad_images_are_named_all_at_once_or_left_out(digits, tmp_path):
    good = sorted(digits.rglob("*.png"))[:20]
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    listed = [*good[:10], tmp_path / "broken.png", *good[10:], tmp_path / "vanished.png"]
    (tmp_path / "list.txt").write_text("\n".join(map(str, listed)))
    with pytest.raises(DataError) as stopped:
        embed(tmp_path / "list.txt", tmp_path / "x.npy", size=SIZE)
    for text in ("2 of 22 images", "broken.png", "vanished.png", "--bad skip"):
        assert text in str(stopped.value)
    with pytest.warns(UserWarning, match=r"(?s)broken\.png.*vanished\.png"):
        made = embed(tmp_path / "list.txt", tmp_path / "x.npy", size=SIZE, bad="skip")
    assert (made.points, len(made.skipped)) == (20, 2)
    names = (tmp_path / "x.ids.csv").read_text().splitlines()[1:]
    assert names == list(map(str, good))
    (tmp_path / "none.txt").write_text("no.png")
    with pytest.raises(DataError, match=r"no\.png"):
        embed(tmp_path / "none.txt", tmp_path / "y.npy", size=SIZE, bad="skip")


def test_lists_and_tables_name_their_images(digits, whole, tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    names = whole.with_name("x.ids.csv").read_text().splitlines()[1:]
    (digits / "list.csv").write_text("label,file\n" + "".join(f"a,{n}\n" for n in names[:3]))
    assert list(source.open_photos(digits / "list.csv").names) == names[:3]
    (digits / "list.csv").unlink()
    rows = [{"bytes": (digits / n).read_bytes(), "path": n} for n in names[:3]]
    pq.write_table(pa.table({"image": rows}), tmp_path / "train-0.parquet")
    for where in (tmp_path, tmp_path / "train-0.parquet"):
        photos = source.open_photos(where)
        assert list(photos.names) == names[:3]
        image = photos.reader((SIZE, SIZE), "bicubic")(1)
        assert image.equal(decode(rows[1]["bytes"], (SIZE, SIZE), "bicubic"))
    unnamed = [row["bytes"] for row in rows]
    pq.write_table(pa.table({"image": unnamed}), tmp_path / "plain.parquet")
    assert list(source.open_photos(tmp_path / "plain.parquet").names) == ["0", "1", "2"]


def test_a_set_of_the_hub(digits, tmp_path, monkeypatch):
    hf = pytest.importorskip("datasets")
    file = next(digits.rglob("*.png"))
    made = hf.Dataset.from_dict({"image": [str(file)] * 2}).cast_column("image", hf.Image())
    encoded = made.map(lambda row: row)  # files become bytes
    buffer = io.BytesIO()
    Image.open(file).save(buffer, "PNG")
    from dlp_plugins.datasets import huggingface

    monkeypatch.setattr(huggingface, "_load", lambda path, config: {"train": encoded})
    photos = source.open_photos("hf:someone/photos")
    assert len(photos) == 2
    with pytest.raises(DataError, match="no split 'test'"):
        source.open_photos("hf:someone/photos", split="test")


def test_flips_are_the_mean_of_both_sides(digits):
    images = torch.stack([
        decode(path.read_bytes(), (SIZE, SIZE)) for path in sorted(digits.rglob("*.png"))[:4]
    ])  # fmt: skip
    plain = describer.new_describer(size=SIZE, device=CPU, precision="float32")
    both = describer.new_describer(size=SIZE, device=CPU, precision="float32", flips=True)
    mean = plain(images) + plain(images.flip(3))
    assert torch.allclose(both(images), torch.nn.functional.normalize(mean, dim=1), atol=1e-5)
    again = describer.build_describer(both.record, CPU)
    assert again(images).equal(both(images))


def test_ids_are_taken_up_by_other_commands(digits, whole, tmp_path):
    file = open_embeddings(whole)
    names = whole.with_name("x.ids.csv").read_text().splitlines()[1:]
    assert file.ids.values == names
    (tmp_path / "labels.csv").write_text(f"file,label\n{names[7]},cat\n{names[3]},dog\n")
    given = read_labels(tmp_path / "labels.csv", 50, ids=file.ids)
    assert given.classes == ["cat", "dog"]
    assert (given.labels[7], given.labels[3]) == (0, 1)
    (tmp_path / "x.npy").write_bytes(whole.read_bytes())
    (tmp_path / "x.ids.csv").write_text("file\na\nb\n")
    with pytest.raises(DataError, match=r"x\.ids\.csv: there are 50 points but 2 ids"):
        open_embeddings(tmp_path / "x.npy")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"backbone": "small_cnn"}, "no trained weights. Take imagenet-lite"),
        ({"backbone": "imagenet-light"}, "Did you mean 'imagenet-lite'"),
        ({"size": 4}, "--size 4"),
        ({"weights_file": Path("w.pth")}, "has weights of its own"),
        ({"out": "x.csv"}, "written as .npy"),
        ({"out": "no/x.npy"}, "no folder"),
        ({"precision": "float8"}, "allowed: auto"),
    ],
)
def test_a_wrong_request_is_refused_in_a_sentence(arguments, said, digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((UsageError, DataError), match=said):
        embed(**{"photos": digits / "0", "out": tmp_path / "x.npy", **arguments})


@pytest.mark.parametrize("name", ["x.json", "x.ids.csv"])
def test_a_file_of_ones_own_beside_it_is_not_replaced_unasked(digits, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match=f"{name}: exists already"):
        embed(digits / "0", tmp_path / "x.npy", size=SIZE)
    assert (tmp_path / name).read_text() == "mine"


def test_columns_of_one_table_are_other_photos(digits, whole, tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    names = whole.with_name("x.ids.csv").read_text().splitlines()[1:41]
    left = [(digits / n).read_bytes() for n in names]
    table = tmp_path / "two.parquet"
    pq.write_table(pa.table({"left": left, "right": left[::-1]}), table)
    with pytest.raises(KeyboardInterrupt):
        embed(
            table, tmp_path / "x.npy", size=SIZE, column="left", save_seconds=0,
            progress=stop_after(32),
        )  # fmt: skip
    assert embed(table, tmp_path / "x.npy", size=SIZE, column="right").resumed == 0


def test_a_shard_of_more_photos_than_there_are_is_not_used(digits, tmp_path):
    copy = tmp_path / "photos"
    copy.mkdir()
    for i, path in enumerate(sorted(digits.rglob("*.png"))[:40]):
        (copy / f"{i:02}.png").write_bytes(path.read_bytes())
    for shard in ("1/2", "2/2"):
        embed(copy, tmp_path / "x.npy", size=SIZE, shard=shard)
    (copy / "39.png").unlink()
    assert embed(copy, tmp_path / "x.npy", size=SIZE).points == 39


def test_nothing_is_replaced_unasked_and_one_process_writes(digits, tmp_path):
    (tmp_path / "x.npy").write_bytes(b"mine")
    with pytest.raises(UsageError, match="--overwrite"):
        embed(digits / "0", tmp_path / "x.npy", size=SIZE)

    def again(done: int) -> None:
        with pytest.raises(RunFolderError, match="in use"):
            embed(digits / "0", tmp_path / "x.npy", size=SIZE, overwrite=True)

    embed(digits / "0", tmp_path / "x.npy", size=SIZE, overwrite=True, progress=again)
    assert np.load(tmp_path / "x.npy").shape[1] == 1280


def test_a_damaged_record_is_reported(whole, tmp_path):
    assert read_record(tmp_path / "x.npy") is None
    told = json.loads(whole.with_suffix(".json").read_text())
    del told["record"]["size"]
    for text in ("{", "[]", json.dumps(told), '{"format": 1, "record": {}}'):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(DataError, match=r"x\.json"):
            read_record(tmp_path / "x.npy")


def test_names_with_blanks_links_and_names_that_are_no_text(digits, tmp_path):
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    image = next((digits / "0").iterdir()).read_bytes()
    for name in (" lead.png", "plain.png", "sub/trail .png"):
        (folder / name).write_bytes(image)
    (folder / "linked").symlink_to(digits / "0")
    with pytest.warns(UserWarning, match=r"Left out below .*: 1 link to other folders"):
        embed(folder, tmp_path / "x.npy", size=SIZE)
    ids = open_embeddings(tmp_path / "x.npy").ids
    assert ids is not None
    assert ids.values == [" lead.png", "plain.png", "sub/trail .png"]
    assert ids.row_of(" lead.png", "") == ids.row_of("lead.png", "") == 0  # as other files have it
    (folder / "linked").unlink()
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png")).write_bytes(image)
    with pytest.raises(DataError, match=r"caf\\xe9\.png: the file's name is not UTF-8"):
        embed(folder, tmp_path / "y.npy", size=SIZE)


def test_weights_in_a_file_are_known_by_their_contents(digits, tmp_path):
    weights = tmp_path / "w.pth"
    network = backbones.build("timm:test_resnet", input_shape=(3, SIZE, SIZE))
    torch.save(network.state_dict(), weights)
    made = describer.new_describer(
        "timm:test_resnet", size=SIZE, weights_file=weights, device=CPU
    ).record
    assert len(made.weights) == 64
    describer.build_describer(made, CPU)
    for tensor in network.state_dict().values():
        tensor.mul_(2)
    torch.save(network.state_dict(), weights)
    with pytest.raises(DataError, match="its weights are not those that the embeddings were made"):
        describer.build_describer(made, CPU)


def test_no_photos_is_said(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.doc").write_text("x")
    (tmp_path / "twice.txt").write_text("a.png\na.png\n")
    for name, said in {
        "empty": "there is no image", "a.doc": "photos are given as", "no": "no such file",
        "twice.txt": "listed more than once",
    }.items():  # fmt: skip
        with pytest.raises(DataError, match=said):
            source.open_photos(tmp_path / name)


def test_the_command_names_its_files_so_that_they_can_be_pasted(digits, tmp_path, monkeypatch):
    out = tmp_path / "my embeddings" / "x.npy"
    made = Embedded(out, 1, 2, [], 0, 1.0, 1)
    monkeypatch.setattr("dlp_plugins.photos.embed.embed", lambda *_, **__: made)
    done = CliRunner().invoke(app, ["embed", str(digits), "--out", str(out)])
    lines = done.stdout.splitlines()
    assert f"wrote {out}, and the photos' names to {out.with_name('x.ids.csv')}" in lines
    assert lines[-1].startswith(f"  dlp propagate '{out}' --labels")
