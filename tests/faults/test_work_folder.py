"""`dlp propagate --on-disk`, killed at any stage: it goes on to the same table."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from child import Child
from small_jobs import STORED, Whole, again

STAGES = ["record.json", "points", "cells", "lists", "graph", "scores-0-10"]


@pytest.fixture(scope="module")
def table(whole: Whole, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    place = tmp_path_factory.mktemp("table")
    link_inputs(whole, place)
    again(STORED, place)
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
    child = Child(STORED, tmp_path / "log", tmp_path)
    finished = tmp_path / "o.csv.work" / stage
    while not finished.exists() and child.process.is_alive():
        time.sleep(0.0005)
    if child.process.is_alive() and child.process.pid is not None:
        os.kill(child.process.pid, signal.SIGKILL)
    done = child.wait()
    assert done.code in (0, -signal.SIGKILL), done.out
    if done.code:
        again([*STORED, "--resume"], tmp_path)
    assert (tmp_path / "o.csv").read_bytes() == table
    assert not (tmp_path / "o.csv.work").exists()
