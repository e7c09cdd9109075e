"""Claims: one session per trial, a dead one's claims are taken over once, failures are shared."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dlp_plugins.bench import claims
from dlp_plugins.bench.claims import Claims

NAME = "solver=cg/seed0"


@pytest.fixture
def lock(tmp_path) -> Path:
    return tmp_path / "run" / ".lock"


def leave(folder: Path, lock: Path, **record: object) -> None:
    """A claim whose session ended without giving it up."""
    session = Claims(folder)
    session.__enter__()
    assert session._take(claims._file_name(NAME), lock)
    session._over.set()
    path = folder / "_claims" / "sessions" / session.session
    path.write_text(json.dumps({**json.loads(path.read_text()), **record}))


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_trial_is_one_sessions_until_it_gives_it_up(tmp_path, lock):
    with Claims(tmp_path) as one, Claims(tmp_path) as other:
        with one.claimed(NAME, lock) as ours:
            assert ours
            with other.claimed(NAME, lock) as theirs, other.claimed("next", lock) as next_one:
                assert not theirs
                assert next_one
        with other.claimed(NAME, lock) as theirs:
            assert theirs


def test_a_claim_that_raises_is_given_up(tmp_path, lock):
    with Claims(tmp_path) as one:
        with pytest.raises(ZeroDivisionError), one.claimed(NAME, lock):
            raise ZeroDivisionError
        with one.claimed(NAME, lock) as ours:
            assert ours


def test_of_many_that_take_over_a_dead_sessions_claim_one_succeeds(tmp_path, lock):
    leave(tmp_path, lock, process=dead_process())
    sessions = [Claims(tmp_path) for _ in range(8)]
    together, wins = threading.Barrier(len(sessions)), []

    def take(session: Claims) -> None:
        with session:
            together.wait()
            with session.claimed(NAME, lock) as ours:
                wins.append(ours)
                together.wait()

    threads = [threading.Thread(target=take, args=[session]) for session in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(wins) == [False] * 7 + [True]


def test_another_process_with_a_dead_ones_number_is_not_it(tmp_path, lock):
    leave(tmp_path, lock, created=0.0)
    with Claims(tmp_path) as one, one.claimed(NAME, lock) as ours:
        assert ours


def test_a_session_elsewhere_lives_as_long_as_it_counts(tmp_path, lock, monkeypatch):
    leave(tmp_path, lock, host="another", process=7)
    lock.parent.mkdir()
    lock.write_text(json.dumps({"process": 7, "host": "another"}))
    with Claims(tmp_path) as one:
        with one.claimed(NAME, lock) as ours:
            assert not ours
        monkeypatch.setattr(claims, "DEAD_SECONDS", 0.0)
        with one.claimed(NAME, lock) as ours:
            assert ours
            # else the run folder would be that machine's for ever
            assert not lock.exists()


def test_somebody_elses_lock_stays(tmp_path, lock, monkeypatch):
    monkeypatch.setattr(claims, "DEAD_SECONDS", 0.0)
    leave(tmp_path, lock, host="another", process=7)
    lock.parent.mkdir()
    lock.write_text(json.dumps({"process": 8, "host": "another"}))
    with Claims(tmp_path) as one, one.claimed(NAME, lock) as ours:
        assert ours
        assert lock.exists()


def test_a_failure_counts_for_those_who_work_beside_it_alone(tmp_path, lock):
    with Claims(tmp_path) as one:
        with Claims(tmp_path) as other:
            one.failed(NAME, "no such file")
            assert other.failure(NAME) == "no such file"
            assert one.failure(NAME) is None  # its own: a trial is tried again in a new call
        with Claims(tmp_path) as later:
            assert later.failure(NAME) == "no such file"
    with Claims(tmp_path) as last:
        assert last.failure(NAME) is None


def test_who_was_silent_for_too_long_learns_that_another_took_over(tmp_path, lock, monkeypatch):
    monkeypatch.setattr(claims, "BEAT_SECONDS", 0.01)
    with Claims(tmp_path) as one, one.claimed(NAME, lock):
        assert not one.lost
        others = tmp_path / "_claims" / f"{claims._file_name(NAME)}.1"
        others.write_text("{}")
        for _ in range(500):
            if one.lost:
                break
            one._over.wait(0.01)
        assert one.lost
    # what the other holds stays
    assert others.exists()


def test_trials_with_similar_names_are_claimed_apart(tmp_path, lock):
    with Claims(tmp_path) as one, Claims(tmp_path) as other:
        one.failed("lr=0.1/seed0", "no such file")
        assert other.failure("lr=0_1/seed0") is None


def test_a_shared_folder_that_is_away_for_a_moment_ends_no_heartbeat(tmp_path, lock, monkeypatch):
    monkeypatch.setattr(claims, "BEAT_SECONDS", 0.01)
    with Claims(tmp_path) as one, one.claimed(NAME, lock):
        found, failing = one._files, iter([OSError(116, "Stale file handle")])

        def files(name):
            for error in failing:
                raise error
            return found(name)

        monkeypatch.setattr(one, "_files", files)
        one._over.wait(0.2)
        beats = one._beats
        one._over.wait(0.2)
        assert one._beats > beats
