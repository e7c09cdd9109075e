"""Two processes on one machine get the labels, the network and the table that one gets."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from two_processes import METHODS, SAME, assert_same, ended, pair

from dlp_plugins.embeddings.run import propagate_file
from dlp_plugins.training.run import run

pytestmark = pytest.mark.distributed

SCRIPT = Path(__file__).with_name("together.py")
NAMES = re.findall(r"^@check\ndef (\w+)", SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> Path:
    """The folder in which two processes have done all checks."""
    folder = tmp_path_factory.mktemp("together")
    print(*[ended(process) for process in pair(str(SCRIPT), str(folder))], sep="\n")
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_two_processes(name, together):
    assert (together / f"{name}.ok").is_file()


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_train_the_network_of_one(method, together, tmp_path):
    run("digits", tmp_path, device="cpu", **SAME, consistency=method)
    assert_same(tmp_path, together / f"{method}-2")


def test_dlp_propagate_by_two_processes_writes_the_table_of_one(tmp_path):
    rng = np.random.default_rng(0)
    classes = np.arange(600) % 8
    np.save(
        tmp_path / "x.npy", rng.normal(size=(8, 16))[classes] + 0.5 * rng.normal(size=(600, 16))
    )
    np.save(tmp_path / "y.npy", np.where(np.arange(600) < 40, classes, -1))
    files = (str(tmp_path / "x.npy"), "--labels", str(tmp_path / "y.npy"))
    command = ("-m", "dlp_cli", "propagate", *files, "--set", "graph.k=8", "--probabilities")
    both = [ended(p) for p in pair(*command, "--out", str(tmp_path / "two.csv"))]
    assert [status for status, _ in both] == [0, 0], both
    assert "wrote" in both[0][1]
    assert both[1][1] == ""
    propagate_file(
        tmp_path / "x.npy", tmp_path / "y.npy", tmp_path / "one.csv", settings=["graph.k=8"],
        probabilities=True,
    )  # fmt: skip
    one, two = (read(tmp_path / name) for name in ("one.csv", "two.csv"))
    assert one[0] == two[0]
    column = one[0].index("label")
    assert [row[column] for row in one[1:]] == [row[column] for row in two[1:]]
    words = {"true": 1.0, "false": 0.0}
    numbers = [
        [[words[x] if x in words else float(x) for x in row] for row in table[1:]]
        for table in (one, two)
    ]
    np.testing.assert_allclose(*numbers, atol=1e-3)


def read(path: Path) -> list[list[str]]:
    return [line.split(",") for line in path.read_text().splitlines()]
