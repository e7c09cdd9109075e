"""Two machines: network namespaces of this one, each with a network of its own and a link between.

The name of this machine leads both to loopback addresses, as on many machines of a cluster.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from two_processes import (
    ENVIRONMENT,
    SAME,
    assert_same,
    ended,
    start,
    wait_for,
    within_the_limit,
    write_recipe,
)

from dlp_plugins.embeddings.run import propagate_file
from dlp_plugins.processes.interface import own_address
from dlp_plugins.training.run import run

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.skipif(
        not shutil.which("ip") or os.geteuid() != 0,
        reason="network namespaces need root and the command ip",
    ),
]

PORT = "29500"  # each test has networks of its own


class Machines:
    """Two machines with the addresses 10.77.0.1 and 10.77.0.2."""

    def __init__(self) -> None:
        self.names = [f"dlp{os.getpid()}-{number}" for number in range(2)]

    def ip(self, *words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True, text=True)

    def connect(self) -> None:
        one, two = self.names
        for name in self.names:
            self.ip("netns", "add", name)
            self.ip("-n", name, "link", "set", "lo", "up")
        peer = ("type", "veth", "peer", "name", "wire", "netns", two)
        self.ip("link", "add", "wire", "netns", one, *peer)
        for number, name in enumerate(self.names, 1):
            self.ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "wire")
            self.ip("-n", name, "link", "set", "wire", "up")

    def cut(self) -> None:
        self.ip("-n", self.names[1], "link", "set", "wire", "down")

    def remove(self) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

    def start(self, *commands: tuple[str, ...]) -> list[subprocess.Popen[str]]:
        """A command on each, as processes 0, 1 of as many."""
        return [
            start(
                "-m", "dlp_cli", *command, inside=("ip", "netns", "exec", name),
                RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK="0", LOCAL_WORLD_SIZE="1",
                MASTER_ADDR="10.77.0.1", MASTER_PORT=PORT,
            )
            for rank, (name, command) in enumerate(zip(self.names, commands, strict=False))
        ]  # fmt: skip


@pytest.fixture
def machines() -> Iterator[Machines]:
    made = Machines()
    try:
        made.connect()
        yield made
    finally:
        made.remove()


def training(folder: Path, out: str, **more: object) -> tuple[str, ...]:
    path = write_recipe(folder, **more)
    return "run", str(path), "--out", str(folder / out), "--device", "cpu"


def test_they_train_the_network_of_one(machines, tmp_path):
    both = machines.start(training(tmp_path, "first"), training(tmp_path, "second"))
    found = [ended(process) for process in both]
    assert [status for status, _ in found] == [0, 0], found
    assert not (tmp_path / "second").exists()
    run("digits", tmp_path / "alone", device="cpu", **SAME)
    assert_same(tmp_path / "alone", tmp_path / "first")


def test_they_share_the_rows_of_a_graph(machines, tmp_path):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, 900)
    x = rng.standard_normal((5, 16))[truth] + 0.7 * rng.standard_normal((900, 16))
    np.save(tmp_path / "x.npy", x.astype(np.float32))
    np.save(tmp_path / "y.npy", np.where(np.arange(900) % 30 == 0, truth, -1))
    files = (str(tmp_path / "x.npy"), "--labels", str(tmp_path / "y.npy"))
    settings = ["graph.size=64", "graph.probes=100", "graph.k=12"]
    words = [word for setting in settings for word in ("--set", setting)]
    command = ("propagate", *files, "--out", str(tmp_path / "two.csv"), "--shard-rows", *words)
    found = [ended(process) for process in machines.start(command, command)]
    assert [status for status, _ in found] == [0, 0], found
    parts = ["graph=cells", "solver=chebyshev", "refiner=none", *settings]
    propagate_file(
        tmp_path / "x.npy", tmp_path / "y.npy", tmp_path / "one.csv", settings=parts,
        device="cpu", calibrated=False,
    )  # fmt: skip
    one, two = (
        np.genfromtxt(tmp_path / name, delimiter=",", names=True) for name in ("one.csv", "two.csv")
    )
    assert (one["label"] == two["label"]).all()
    np.testing.assert_allclose(one["certainty"], two["certainty"], rtol=0, atol=1e-5)


def test_a_link_that_is_cut_ends_both_with_a_sentence(machines, tmp_path):
    more = {"training.stage_two_epochs": 2000, "training.checkpoint_seconds": 0}
    both = machines.start(training(tmp_path, "first", **more), training(tmp_path, "second", **more))
    wait_for(tmp_path / "first/checkpoint/training.safetensors", *both)
    machines.cut()
    with within_the_limit():
        found = [ended(process) for process in both]
    for (status, text), other in zip(found, (1, 0), strict=True):
        assert status == 1, text
        assert text.count(f"error: Process {other} of the 2 has died or hangs") == 1, text


def test_one_that_starts_alone_is_told_so(machines, tmp_path):
    [process] = machines.start(training(tmp_path, "first"))
    status, text = ended(process)
    assert status == 2, text
    assert "process 0 of 2 did not find the others within 30 s" in text


def test_the_address_on_the_way_to_the_other_is_found(machines):
    code = (
        "import os\nfrom dlp_plugins.processes.interface import talk_by_the_way_to as talk\n"
        "talk('10.77.0.1')\nprint(os.environ['GLOO_SOCKET_IFNAME'])"
    )
    for name in machines.names:
        words = ["ip", "netns", "exec", name, sys.executable, "-c", code]
        done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True)
        assert done.stdout == "wire\n", done.stderr


def test_loopback_leads_nowhere():
    assert own_address("127.0.0.1") is None
    assert own_address("no such machine") is None
