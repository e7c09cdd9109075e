"""A signal at any moment: what was begun goes on to the same result, and nothing else is harmed."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from amounts import MOMENTS
from child import Child, Done
from small_jobs import BENCH, EMBED, PROPAGATE, RUN, Whole, again, check_same_run

SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT]
CASES = [(s, moment) for s in SIGNALS for moment in range(MOMENTS)]
FEWER = [case for case in CASES if case[1] % 3 == 0]  # a suite is several runs


def interrupted(
    words: list[str], which: signal.Signals, at: Path, moment: int, whole: Whole
) -> Done:
    """The command, sent a signal somewhere between its start and its end."""
    # every share of its time is tried once, somewhere within
    share = (moment + random.random()) / MOMENTS
    child = Child(words, at / "log", at)
    time.sleep(share * whole.seconds[words[0]])
    if child.process.is_alive() and child.process.pid is not None:
        os.kill(child.process.pid, which)
    return child.wait()


def check_end(done: Done, which: signal.Signals) -> None:
    """It ended by itself, or as that signal ends a program; never with a traceback."""
    assert done.code in (0, -which, 130, 128 + which), done.out
    assert "Traceback" not in done.out
    assert "error:" not in done.out


@pytest.mark.parametrize(("which", "moment"), CASES)
def test_a_run_goes_on_to_the_same_result(
    which: signal.Signals, moment: int, whole: Whole, tmp_path: Path
) -> None:
    words = [*RUN, "--out", "run"]
    check_end(interrupted(words, which, tmp_path, moment, whole), which)
    begun = (tmp_path / "run" / "recipe.toml").is_file()
    again([*words, "--resume"] if begun else words, tmp_path)
    check_same_run(tmp_path / "run", whole.folder / "run")


@pytest.mark.parametrize(("which", "moment"), CASES)
def test_photos_are_embedded_to_the_same_bytes(
    which: signal.Signals, moment: int, whole: Whole, tmp_path: Path
) -> None:
    (tmp_path / "photos").symlink_to(whole.folder / "photos")
    check_end(interrupted(EMBED, which, tmp_path, moment, whole), which)
    if not (tmp_path / "x.npy").exists():
        again(EMBED, tmp_path)
    for name in ("x.npy", "x.ids.csv", "x.json"):
        assert (tmp_path / name).read_bytes() == (whole.folder / name).read_bytes(), name
    left = {p.name for p in tmp_path.iterdir()} - {"log", "again.log", "photos"}
    if which is signal.SIGKILL:  # once x.npy is there, its lock and what was resumed by may be left
        left = {name for name in left if not name.startswith(".x.npy.")}
    assert left == {"x.npy", "x.ids.csv", "x.json"}


@pytest.mark.parametrize(("which", "moment"), CASES)
def test_a_table_is_whole_or_not_there_and_the_old_one_stays(
    which: signal.Signals, moment: int, whole: Whole, tmp_path: Path
) -> None:
    for name in ("e.npy", "y.csv"):
        (tmp_path / name).symlink_to(whole.folder / name)
    (tmp_path / "o.csv").write_text("old")
    check_end(interrupted([*PROPAGATE, "--overwrite"], which, tmp_path, moment, whole), which)
    expected = (whole.folder / "o.csv").read_bytes()
    assert (tmp_path / "o.csv").read_bytes() in (b"old", expected)
    again([*PROPAGATE, "--overwrite"], tmp_path)
    assert (tmp_path / "o.csv").read_bytes() == expected


@pytest.mark.parametrize(("which", "moment"), FEWER)
def test_a_suite_goes_on_to_the_same_runs(
    which: signal.Signals, moment: int, whole: Whole, tmp_path: Path
) -> None:
    check_end(interrupted(BENCH, which, tmp_path, moment, whole), which)
    again(BENCH, tmp_path)
    for row in ("solver=cg", "solver=power"):
        run = Path("bench") / row / "seed0"
        check_same_run(tmp_path / run, whole.folder / run)
