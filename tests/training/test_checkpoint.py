"""Checkpoints: what was saved comes back, or an error; never anything else."""

from __future__ import annotations

import os
import random

import pytest
import torch

from dlp_plugins.errors import DataError, SaveError
from dlp_plugins.training import checkpoint

STATE = {
    "student.weight": torch.arange(12.0).reshape(3, 4),
    "student.count": torch.tensor(7),
    "pseudo.labels": torch.tensor([1, -1, 2]),
}
NUMBERS = {"epoch": 3, "history": [{"stage": "supervised", "error": 12.5}], "note": 'a "quoted" é'}


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "training.safetensors"
    checkpoint.save(path, STATE, NUMBERS)
    return path


def assert_is_what_was_saved(found) -> None:
    tensors, numbers = found
    assert numbers == NUMBERS
    assert tensors.keys() == STATE.keys()
    assert all(torch.equal(tensors[k], STATE[k]) for k in STATE)


def test_what_was_saved_comes_back(saved):
    assert_is_what_was_saved(checkpoint.load(saved))


def test_the_same_state_gives_the_same_bytes(saved):
    checkpoint.save(saved.with_name("again"), STATE, NUMBERS)
    assert saved.with_name("again").read_bytes() == saved.read_bytes()


def test_views_of_one_tensor_can_be_saved(tmp_path):
    whole = torch.arange(6.0)
    checkpoint.save(tmp_path / "x", {"a": whole[:3], "b": whole, "c": whole.reshape(2, 3).T})
    tensors, _ = checkpoint.load(tmp_path / "x")
    assert tensors["c"].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_any_flipped_bit_is_an_error(saved):
    raw = saved.read_bytes()
    generator = random.Random(0)
    for bit in generator.sample(range(8 * len(raw)), 150):
        damaged = bytearray(raw)
        damaged[bit // 8] ^= 1 << bit % 8
        saved.write_bytes(damaged)
        with pytest.raises(DataError, match=r"training\.safetensors is damaged"):
            checkpoint.load(saved)


@pytest.mark.parametrize("length", [0, 4, 100, -1])
def test_a_shortened_file_is_an_error(saved, length):
    saved.write_bytes(saved.read_bytes()[:length])
    with pytest.raises(DataError, match="is damaged"):
        checkpoint.load(saved)


def test_a_file_without_a_digest_is_an_error(tmp_path):
    from safetensors.torch import save_file

    save_file(STATE, tmp_path / "x.safetensors", {"numbers": "{}"})
    with pytest.raises(DataError, match="is damaged"):
        checkpoint.load(tmp_path / "x.safetensors")


def test_a_file_is_read_by_any_safetensors_reader(saved):
    from safetensors.torch import load_file

    assert torch.equal(load_file(saved)["student.weight"], STATE["student.weight"])


@pytest.mark.parametrize("make", [lambda path: None, os.mkfifo, os.mkdir])
def test_a_missing_file_a_pipe_and_a_folder_are_errors(make, tmp_path):
    make(tmp_path / "x")
    with pytest.raises(DataError, match="no such file"):
        checkpoint.load(tmp_path / "x")


def test_a_file_is_opened_once_so_that_a_save_in_between_does_no_harm(saved, monkeypatch):
    reads = []
    read_bytes = type(saved).read_bytes

    def replaced_after(path):
        raw = read_bytes(path)
        reads.append(path)
        path.write_bytes(b"")
        return raw

    monkeypatch.setattr(type(saved), "read_bytes", replaced_after)
    assert_is_what_was_saved(checkpoint.load(saved))
    assert len(reads) == 1


def test_the_file_that_is_replaced_is_kept(saved):
    previous = saved.with_name("previous.safetensors")
    checkpoint.save(saved, {"a": torch.zeros(1)}, {"epoch": 4}, previous)
    assert checkpoint.load(saved)[1] == {"epoch": 4}
    assert_is_what_was_saved(checkpoint.load(previous))


def test_a_failed_save_leaves_both_files_whole(saved, monkeypatch):
    previous = saved.with_name("previous.safetensors")
    checkpoint.save(previous, {"a": torch.zeros(1)}, {"epoch": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SaveError, match="No space left on device"):
        checkpoint.save(saved, {"a": torch.ones(1)}, {"epoch": 9}, previous)
    monkeypatch.undo()
    assert_is_what_was_saved(checkpoint.load(saved))
    assert checkpoint.load(previous)[1] == {"epoch": 1}
    assert sorted(p.name for p in saved.parent.iterdir()) == [previous.name, saved.name]


def test_numbers_that_are_not_finite_are_null_in_the_file(tmp_path):
    checkpoint.save(tmp_path / "x", {}, {"error": float("nan"), "all": [float("inf"), 1.0]})
    assert checkpoint.load(tmp_path / "x")[1] == {"error": None, "all": [None, 1.0]}
