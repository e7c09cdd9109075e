"""Two processes that find each other without a launcher, for tests of what they do together."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from places import ROOT

from dlp_plugins.training import checkpoint

PATIENCE = 400  # seconds, on a machine that others use too
END_SECONDS = 30  # in which the others end after one has died
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "cli", ROOT / "tests"))),
}
# Without batch norm, dropout and augmentation nothing is drawn and no statistics are of a share, so
# that two processes train the same network as one; uneven shares of both kinds of images.
SAME = {
    "dataset.num_train": 300,
    "dataset.num_test": 100,
    "backbone": {"name": "mlp", "hidden": [32], "batch_norm": False},
    "augmentation.translate": 0,
    "training.stage_one_epochs": 2,
    "training.stage_one_steps": 4,
    "training.stage_two_epochs": 2,
    "training.batch_size": 40,
    "training.labeled_per_batch": 9,
    "training.precision": "float32",
    "training.soft_labels": True,
}
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "dlp_cli")
METHODS = ("none", "mean_teacher", "temporal_ensembling")


def write_recipe(folder: Path, **settings: object) -> Path:
    """A recipe of the digits with `SAME` and these settings."""
    lines = [f"{key} = {_toml(value)}" for key, value in {**SAME, **settings}.items()]
    path = folder / "recipe.toml"
    path.write_text("\n".join(['extends = "digits.toml"', *lines]))
    return path


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + "}"
    return json.dumps(value)


def wait_for(path: Path, *processes: subprocess.Popen[str]) -> None:
    """Until they have written a file."""
    end = time.monotonic() + PATIENCE
    while not path.is_file():
        for process in processes:
            assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


@contextmanager
def within_the_limit() -> Iterator[None]:
    """What is done here ends in time."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < END_SECONDS


def start(*command: str, inside: tuple[str, ...] = (), **environment: str) -> subprocess.Popen[str]:
    """Python with these words, by a command that runs others within something."""
    return subprocess.Popen(
        [*inside, sys.executable, *command],
        env={**ENVIRONMENT, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def pair(*command: str) -> list[subprocess.Popen[str]]:
    """The same command twice, as processes 0 and 1 of 2."""
    return several(2, *command)


def several(
    count: int, *command: str, of_last: tuple[str, ...] = ()
) -> list[subprocess.Popen[str]]:
    """The same command as processes 0, 1, ... of so many; the last one has further words."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    size = str(count)
    known = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1"}
    words = [command] * (count - 1) + [(*command, *of_last)]
    return [
        start(*words[rank], RANK=str(rank), LOCAL_RANK=str(rank), MASTER_PORT=port, **known)
        for rank in range(count)
    ]


def ended(process: subprocess.Popen[str], within: float = PATIENCE) -> tuple[int, str]:
    """Exit status, and what it printed."""
    try:
        out, err = process.communicate(timeout=within)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"still runs after {within} s: {process.communicate()}") from None
    return process.returncode, out + err


def assert_same(alone: Path, both: Path) -> None:
    """Errors, labels, losses and weights but for rounding."""
    results = [json.loads((f / "summary.json").read_text()) for f in (alone, both)]
    for key in ("test_error", "supervised_test_error", "pseudo_label_accuracy"):
        assert results[0][key] == results[1][key]
    labels = [np.load(f / "pseudo_labels.npz") for f in (alone, both)]
    assert (labels[0]["labels"] == labels[1]["labels"]).all()
    names = [n for n in ("student", "teacher") if (alone / f"checkpoint/{n}.safetensors").is_file()]
    for name in names:
        one, two = (checkpoint.load(f / f"checkpoint/{name}.safetensors")[0] for f in (alone, both))
        for key, tensor in one.items():
            torch.testing.assert_close(two[key], tensor, rtol=1e-3, atol=1e-4)
    lines = [(f / "metrics.jsonl").read_text().splitlines() for f in (alone, both)]
    for ours, theirs in zip(*(map(json.loads, file) for file in lines), strict=True):
        for key in ours:
            if key.startswith("loss_"):
                assert theirs[key] == pytest.approx(ours[key], rel=1e-3)
