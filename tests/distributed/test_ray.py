"""`dlp bench --ray`: a lost worker is started again, and no run is lost or done twice."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from two_processes import PATIENCE, ended, start

pytest.importorskip("ray")
pytestmark = [pytest.mark.distributed, pytest.mark.slow]
TINY = [f"--set={line}" for line in (
    "dataset.num_train=300", "dataset.num_test=100", "backbone.width=4",
    "training.stage_one_epochs=2", "training.stage_one_steps=3", "training.stage_two_epochs=60",
    "training.checkpoint_seconds=0.5",
)]  # fmt: skip


def worker_of(bench: Path) -> int | None:
    """The process that writes into one of the run folders."""
    for lock in bench.glob("solver=*/*/.lock"):
        if (lock.parent / "checkpoint" / "training.safetensors").is_file():
            return int(json.loads(lock.read_text())["process"])
    return None


def test_a_lost_worker_is_started_again(tmp_path):
    bench = tmp_path / "bench"
    command = ("-m", "dlp_cli", "bench", "digits", "--vary", "solver=cg,power", "--device", "cpu")
    driver = start(*command, *TINY, "--out", str(bench), "--ray")
    end = time.monotonic() + PATIENCE
    while (worker := worker_of(bench)) is None:
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < end
        time.sleep(0.1)
    assert psutil.Process(worker).ppid() != driver.pid  # Ray's, not the driver itself
    os.kill(worker, signal.SIGKILL)
    status, text = ended(driver)
    assert status == 0, text
    assert text.count(": error ") == 2
    for folder in bench.glob("solver=*/*"):
        epochs = [json.loads(line)["epoch"] for line in (folder / "metrics.jsonl").open()]
        assert len(epochs) == 62
