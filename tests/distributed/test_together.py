"""Two processes on one machine: the same labels, the same network, one owner of the folder."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dlp_plugins.training import checkpoint
from dlp_plugins.training.run import run

pytestmark = pytest.mark.distributed

SCRIPT = Path(__file__).with_name("together.py")
NAMES = re.findall(r"^@check\ndef (\w+)", SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "dlp_cli")
TINY = [
    "--set", "dataset.num_train=300", "--set", "dataset.num_test=100", "--set", "backbone.width=4",
    "--set", "training.stage_one_epochs=1", "--set", "training.stage_one_steps=4",
]  # fmt: skip
PATIENCE = 150  # seconds, on a machine that others use too
END_SECONDS = 30  # within which a process that died, hangs or raised ends the others


def port() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def start(rank: int, at: str, *command: str) -> subprocess.Popen[str]:
    """One of two processes that find each other at that port, without a launcher."""
    known = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    return subprocess.Popen(
        [sys.executable, *command],
        env={**ONE_THREAD, **known, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": at},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def pair(*command: str) -> list[subprocess.Popen[str]]:
    at = port()
    return [start(rank, at, *command) for rank in (0, 1)]


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out + err


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> Path:
    """The folder in which two processes have done all checks."""
    folder = tmp_path_factory.mktemp("together")
    both = pair(str(SCRIPT), str(folder))
    texts = [ended(process) for process in both]
    print(*texts, sep="\n")
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_two_processes(name, together):
    assert (together / f"{name}.ok").is_file()


@pytest.mark.parametrize("method", ["none", "mean_teacher", "temporal_ensembling"])
def test_two_processes_train_the_network_of_one(method, together, tmp_path):
    sys.path.insert(0, str(SCRIPT.parent))
    from together import SAME

    alone = tmp_path / "alone"
    summary = run("digits", alone, device="cpu", **SAME, consistency=method)
    both = together / f"{method}-2"
    assert json.loads((both / "summary.json").read_text())["test_error"] == summary["test_error"]
    names = ["student"] if method != "mean_teacher" else ["student", "teacher"]
    for name in names:
        one, two = (
            checkpoint.load(f / "checkpoint" / f"{name}.safetensors")[0] for f in (alone, both)
        )
        for key, tensor in one.items():
            torch.testing.assert_close(two[key], tensor, rtol=1e-3, atol=1e-5)
    lines = [(f / "metrics.jsonl").read_text().splitlines() for f in (alone, both)]
    assert len(lines[0]) == len(lines[1])
    for ours, theirs in zip(*(map(json.loads, file) for file in lines), strict=True):
        for key in ours:
            if key.startswith("loss_"):
                assert theirs[key] == pytest.approx(ours[key], rel=1e-3)
