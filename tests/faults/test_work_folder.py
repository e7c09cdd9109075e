"""`dlp propagate --on-disk`, killed at any stage or out of room: it goes on to the same table."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from child import Child, dlp
from small_jobs import PROPAGATE, Whole, again
from test_full_disk import PAGE, ROOM, disk, mount

WORDS = [
    *PROPAGATE, "--on-disk", "--set", "graph=cells", "--set", "refiner=none", "--set",
    "transform=none", "--probabilities",
]  # fmt: skip
STAGES = ["record.json", "points", "cells", "lists", "graph", "scores-0-10"]
__all__ = ["disk"]  # a fixture


@pytest.fixture(scope="module")
def table(whole: Whole, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    place = tmp_path_factory.mktemp("table")
    link_inputs(whole, place)
    again(WORDS, place)
    assert sorted(p.name for p in place.iterdir()) == ["again.log", "e.npy", "o.csv", "y.csv"]
    return (place / "o.csv").read_bytes()


def link_inputs(whole: Whole, place: Path) -> None:
    for name in ("e.npy", "y.csv"):
        (place / name).symlink_to(whole.folder / name)


@pytest.mark.parametrize("stage", STAGES)
def test_a_propagation_killed_after_any_stage_goes_on(
    stage: str, whole: Whole, table: bytes, tmp_path: Path
) -> None:
    link_inputs(whole, tmp_path)
    child = Child(WORDS, tmp_path / "log", tmp_path)
    finished = tmp_path / "o.csv.work" / stage
    while not finished.exists() and child.process.is_alive():
        time.sleep(0.0005)
    if child.process.is_alive() and child.process.pid is not None:
        os.kill(child.process.pid, signal.SIGKILL)
    done = child.wait()
    assert done.code in (0, -signal.SIGKILL), done.out
    if done.code:
        again([*WORDS, "--resume"], tmp_path)
    assert (tmp_path / "o.csv").read_bytes() == table
    assert not (tmp_path / "o.csv.work").exists()


@pytest.mark.parametrize("pages", [1, 100, 160, 280])
def test_a_propagation_through_files_that_finds_no_room_goes_on(
    pages: int, whole: Whole, table: bytes, disk: Path, tmp_path: Path
) -> None:
    link_inputs(whole, disk)
    assert mount("-o", f"remount,size={PAGE * pages}", "none", disk)
    done = dlp(WORDS, tmp_path / "log", disk)
    assert done.code == 1, done.out
    assert "Traceback" not in done.out
    assert "No space left on device" in done.out
    assert mount("-o", f"remount,size={ROOM}", "none", disk)
    again([*WORDS, "--resume"], disk)
    assert (disk / "o.csv").read_bytes() == table
    assert subprocess.run(["ls", str(disk / "o.csv.work")], capture_output=True).returncode
