"""A process that dies, hangs or raises ends the others; another number of them may resume."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
from two_processes import (
    TORCHRUN,
    assert_same,
    ended,
    pair,
    start,
    wait_for,
    within_the_limit,
    write_recipe,
)

from dlp_plugins.training.run import run

pytestmark = pytest.mark.distributed

EPOCHS = 6


def recipe(folder: Path, **more: object) -> Path:
    """A run whose two stages have a checkpoint after every step."""
    more = {"training.stage_two_epochs": EPOCHS, "training.checkpoint_seconds": 0, **more}
    return write_recipe(folder, **more)


def test_a_killed_process_ends_the_run(tmp_path):
    folder, path = tmp_path / "run", recipe(tmp_path, **{"training.stage_two_epochs": 200})
    launcher = start(*TORCHRUN, "run", str(path), "--out", str(folder))
    wait_for(folder / "checkpoint" / "training.safetensors", launcher)
    workers = [p for p in psutil.Process(launcher.pid).children() if "RANK" in p.environ()]
    (victim,) = (p for p in workers if p.environ()["RANK"] == "1")
    with within_the_limit():
        victim.kill()
        status, text = ended(launcher)
    assert status != 0
    assert text.count("has died or hangs, so all of them end") == 1
    assert not any(p.is_running() for p in workers)


def test_a_stopped_process_ends_the_others_with_one_sentence(tmp_path):
    folder, path = tmp_path / "run", recipe(tmp_path, **{"training.stage_two_epochs": 2000})
    first, second = pair("-m", "dlp_cli", "run", str(path), "--out", str(folder))
    wait_for(folder / "checkpoint" / "training.safetensors", first, second)
    try:
        with within_the_limit():
            second.send_signal(signal.SIGSTOP)
            status, text = ended(first)
        assert status == 1
        assert text.count("error: Process 1 of the 2 has died or hangs") == 1
    finally:
        second.kill()
        second.communicate()


RAISES = """
import os
from dlp_plugins.errors import DataError
from dlp_plugins.registry import weighters
from dlp_plugins.weighters.uniform import Uniform

@weighters.register("broken")
class Broken(Uniform):
    '''Raises in one process.'''
    def certainty(self, probabilities):
        if os.environ.get("RANK") == "1":
            raise DataError("the second process cannot read its disk")
        return super().certainty(probabilities)
"""


def test_a_process_that_raises_ends_the_others_and_alone_says_why(tmp_path):
    (tmp_path / "broken.py").write_text(RAISES)
    path = recipe(tmp_path, weighter="broken")
    plugin = ("--plugin", str(tmp_path / "broken.py"), "--out", str(tmp_path / "run"))
    first, second = pair("-m", "dlp_cli", "run", str(path), *plugin)
    status, text = ended(second)
    with within_the_limit():
        other_status, other_text = ended(first)
    assert (status, other_status) == (1, 1)
    assert text == "error: the second process cannot read its disk\n"
    assert "error" not in other_text.replace("test error", "")
    assert not (tmp_path / "run" / ".lock").exists()


def test_an_interrupted_run_of_two_processes_ends_as_that_of_one(tmp_path):
    folder, path = tmp_path / "run", recipe(tmp_path)
    both = pair("-m", "dlp_cli", "run", str(path), "--out", str(folder))
    wait_for(folder / "pseudo_labels.npz", *both)
    both[1].send_signal(signal.SIGTERM)  # any of them may be asked to stop
    (status, text), (other, silence) = map(ended, both)
    assert (status, other, silence) == (130, 130, "")
    assert "--resume" in text
    assert not (folder / "summary.json").exists()
    run(path, folder, resume=True, device="cpu")
    run(path, tmp_path / "alone", device="cpu")
    assert_same(tmp_path / "alone", folder)


def test_accelerate_launch_and_a_run_of_one_resumed_by_two(tmp_path):
    folder, path = tmp_path / "run", recipe(tmp_path)
    begun = start("-m", "dlp_cli", "run", str(path), "--out", str(folder))
    wait_for(folder / "pseudo_labels.npz", begun)
    begun.send_signal(signal.SIGINT)
    assert ended(begun)[0] == 130
    launch = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "-m", "dlp_cli")
    status, text = ended(start(*launch, "run", str(path), "--out", str(folder), "--resume"))
    assert status == 0, text
    assert text.count("Everything is in") == 1
    run(path, tmp_path / "alone", device="cpu")
    assert_same(tmp_path / "alone", folder)


def test_two_benches_on_one_folder_do_every_run_once(tmp_path):
    settings = [f"--set={line}" for line in (
        "dataset.num_train=300", "dataset.num_test=100", "backbone.width=4",
        "training.stage_one_epochs=2", "training.stage_one_steps=3", "training.stage_two_epochs=2",
    )]  # fmt: skip
    command = ("-m", "dlp_cli", "bench", "digits", "--vary", "solver=cg,power", "--seeds", "2")
    out = ("--out", str(tmp_path / "bench"))
    one, two = (start(*command, *settings, *out) for _ in range(2))
    texts = []
    for process in (one, two):
        status, text = ended(process)
        assert status == 0, text
        texts.append(text)
    tables = [text[text.index("wrote") :] for text in texts]
    assert tables[0] == tables[1]
    # a run done twice would be continued or begun again: two starts in its history
    for folder in (tmp_path / "bench").glob("solver=*/*"):
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
        assert [(line["stage"], line["epoch"]) for line in lines] == [
            (stage, epoch) for stage in ("supervised", "propagation") for epoch in (0, 1)
        ]
        assert (folder / "summary.json").is_file()
    assert sorted(p.suffix for p in (tmp_path / "bench" / "_claims").iterdir()) == [""]


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_another_command_under_a_launcher_is_refused_in_one_sentence(tmp_path):
    known = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    status, text = ended(start("-m", "dlp_cli", "list", **known))
    assert status == 2
    assert text.startswith("error: 2 processes were started, but dlp list uses one.")
    assert os.linesep not in text.strip()
