"""Images that vanish or are damaged, before a run or half-way: all are named, then stop or skip."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dlp_cli.app import app
from PIL import Image
from typer.testing import CliRunner

from dlp_plugins.datasets.contract import LazyImages
from dlp_plugins.errors import DataError
from dlp_plugins.recipe.check import load_recipe
from dlp_plugins.registry import datasets
from dlp_plugins.training import events
from dlp_plugins.training.batches import ImageStore
from dlp_plugins.training.pseudo_labels import PseudoLabelState
from dlp_plugins.training.run import run

RNG = np.random.default_rng(0)


def draw(path: Path, bright: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(bright, bright + 90, (9, 9, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """12 dark and 12 bright images to train on, half of them unlabelled, and 6 to test."""
    for i in range(6):
        for kind, bright in (("dark", 0), ("bright", 160)):
            draw(tmp_path / "photos/train" / kind / f"{i}.png", bright)
            draw(tmp_path / "photos/unlabeled" / f"{kind}{i}.png", bright)
        kind, bright = ("dark", 0) if i % 2 else ("bright", 160)
        draw(tmp_path / "photos/test" / kind / f"{i}.png", bright)
    return tmp_path


def settings(folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "dataset": "imagefolder", "dataset.root": str(folder / "photos"), "dataset.image_size": 9,
        "dataset.num_labeled": "all", "backbone": "mlp", "graph.k": 3, "training.workers": 0,
        "training.batch_size": 6,
        "training.labeled_per_batch": 3, "training.stage_one_epochs": 2,
        "training.stage_two_epochs": 3, "training.checkpoint_seconds": 0, **more,
    }  # fmt: skip


FROM_DISK = {"training.image_memory_mb": 0, "training.image_disk_mb": 0}
SKIP = {"dataset.unreadable": "skip"}


def spoil(folder: Path) -> None:
    """One image of each use goes."""
    (folder / "photos/train/dark/2.png").unlink()
    (folder / "photos/unlabeled/bright3.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (folder / "photos/test/dark/1.png").write_bytes(b"")


NAMED = ("train/dark/2.png", "unlabeled/bright3.png")


def at_epoch(number: int, work: Callable[[], None]) -> Callable[[events.Event], None]:
    def listen(event: events.Event) -> None:
        here = isinstance(event, events.EpochDone) and event.stage == "propagation"
        if here and event.epoch == number:
            work()

    return listen


def test_half_way_all_are_named_and_a_run_goes_on_once_they_are_back(
    folder: Path,
) -> None:
    chosen = settings(folder, **FROM_DISK)
    run("digits", folder / "whole", device="cpu", **chosen)
    shutil.copytree(folder / "photos", folder / "kept")
    with pytest.raises(DataError, match="2 of 24 images cannot be read") as stopped:
        run(
            "digits", folder / "run", device="cpu", **chosen,
            listeners=[at_epoch(0, lambda: spoil(folder))],
        )  # fmt: skip
    assert all(name in str(stopped.value) for name in NAMED)
    shutil.rmtree(folder / "photos")
    shutil.copytree(folder / "kept", folder / "photos")
    run("digits", folder / "run", device="cpu", resume=True, **chosen)
    weights = "checkpoint/student.safetensors"
    assert (folder / "run" / weights).read_bytes() == (folder / "whole" / weights).read_bytes()


def test_half_way_they_are_skipped_and_counted_by_choice(folder: Path) -> None:
    chosen = settings(folder, **FROM_DISK, **SKIP)
    with pytest.warns(UserWarning, match="Left out: ") as warned:
        summary = run(
            "digits", folder / "run", device="cpu", **chosen,
            listeners=[at_epoch(0, lambda: spoil(folder))],
        )  # fmt: skip
    text = "\n".join(str(w.message) for w in warned)
    assert all(name in text for name in (*NAMED, "test/dark/1.png"))
    assert text.count("cannot be read as an image") == 3  # once each
    assert summary["unreadable_images"] == 3
    assert json.loads((folder / "run/summary.json").read_text())["unreadable_images"] == 3


@pytest.mark.filterwarnings("ignore:Left out")
def test_skipped_images_have_no_part_in_the_result(folder: Path) -> None:
    """Whatever stood in the file: the network is the same, and so is the error."""
    found = []
    for bright in (b"", b"broken"):
        (folder / "photos/train/dark/2.png").write_bytes(bright)
        (folder / "photos/test/dark/1.png").write_bytes(bright)
        out = folder / f"run{len(found)}"
        summary = run("digits", out, device="cpu", **settings(folder, **SKIP))
        found.append((out / "checkpoint/student.safetensors").read_bytes())
        assert summary["unreadable_images"] == 2
        assert (summary["test_error"] * 5 / 100) % 1 == pytest.approx(0)  # of the 5 others
    assert found[0] == found[1]


def read_all(
    images: LazyImages, memory: int, folder: Path | None = None
) -> tuple[ImageStore, list[torch.Tensor]]:
    """From memory, from a file in a folder, or as they are needed."""
    device = torch.device("cpu")
    store = ImageStore(images, device, workers=0, memory_mb=memory, disk_mb=10, folder=folder)
    return store, list(store.in_order(5))


def test_a_skipped_image_has_neither_label_nor_weight(folder: Path) -> None:
    spoil(folder)
    images = datasets.build(
        "imagefolder", root=str(folder / "photos"), image_size=9, unreadable="skip"
    ).train
    for memory, place in ((0, None), (0, folder), (10, None)):
        with pytest.warns(UserWarning, match=r"Left out: .*bright3\.png"):
            store, batches = read_all(images, memory, place)
        (bad,) = store.unreadable
        assert torch.cat(batches)[bad].eq(0).all()
        assert store.known(images.labels.clamp(min=0))[bad] == -1
    state = PseudoLabelState(torch.ones(4).long(), torch.ones(4), torch.ones(4), torch.ones(2))
    less = state.without([2])
    assert less.labels.tolist() == [1, 1, -1, 1]
    assert less.weights.tolist() == less.certainty.tolist() == [1, 1, 0, 1]
    assert state.weights.tolist() == [1] * 4


def test_without_a_readable_label_there_is_nothing_to_learn(folder: Path) -> None:
    for path in (folder / "photos/train").rglob("*.png"):
        path.write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="Left out"),
        pytest.raises(DataError, match="None of the labelled images can be read"),
    ):
        run("digits", folder / "run", device="cpu", **settings(folder, **SKIP))
    for path in (folder / "photos").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="30 of 30 images cannot be read"):
        run("digits", folder / "run", device="cpu", **settings(folder, **SKIP))


# -- dlp check --data ------------------------------------------------------------------------------


def check(folder: Path, **more: Any) -> Any:
    path = folder / "mine.toml"
    lines = [f"{k} = {json.dumps(v)}" for k, v in settings(folder, **more).items() if "." in k]
    path.write_text("\n".join(['extends = "digits"', 'dataset.name = "imagefolder"', *lines]))
    text = path.read_text().replace('backbone = "mlp"', "")
    path.write_text(text)
    return CliRunner().invoke(app, ["check", str(path), "--data"])


def test_check_with_data_reads_every_image(folder: Path) -> None:
    done = check(folder)
    assert done.exit_code == 0, done.output
    assert "data: 24 training images of 2 classes, 12 with a label, of which 12 are used" in (
        done.output
    )
    assert "6 test images; 0 cannot be read" in done.output


def test_check_with_data_names_all_that_fail_of_both_splits(folder: Path) -> None:
    (folder / "photos/test/dark/1.png").write_bytes(b"")
    (folder / "photos/unlabeled/bright3.png").write_bytes(b"x")
    done = check(folder)
    assert isinstance(done.exception, DataError)
    assert "2 of 30 images cannot be read" in str(done.exception)
    done = check(folder, **SKIP)
    assert done.exit_code == 0
    assert "2 cannot be read" in done.output


def test_check_with_data_finds_too_few_labels(folder: Path) -> None:
    done = check(folder, **{"dataset.num_labeled": 500})
    assert "500 labelled examples were asked for" in str(done.exception)


def test_the_default_is_to_stop(folder: Path) -> None:
    assert load_recipe("digits", settings(folder)).dataset.params["unreadable"] == "stop"
