"""A disk that is full after any number of bytes: a sentence, and with more room the same result."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from amounts import MOMENTS
from child import dlp
from small_jobs import JOBS, STORED, Whole, again, check_same_run

PAGE = 4096  # a file in memory takes whole pages
ROOM = 2**26
WRITTEN = {"run": ["run"], "embed": ["x.npy", "x.ids.csv", "x.json"], "propagate": ["o.csv"]}


def mount(*words: str | Path) -> bool:
    done = subprocess.run(["mount", "-t", "tmpfs", *map(str, words)], capture_output=True)
    return done.returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    if not mount("-o", f"size={ROOM}", "none", place):
        pytest.skip("needs the right to mount a file system of a chosen size")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def pages(files: list[Path]) -> int:
    found = [f for top in files for f in (top.rglob("*") if top.is_dir() else [top])]
    return sum(-(-f.stat().st_size // PAGE) for f in found if f.is_file())


@pytest.mark.parametrize("moment", range(MOMENTS))
@pytest.mark.parametrize("name", WRITTEN)
def test_a_full_disk_loses_nothing(name: str, moment: int, whole: Whole, disk: Path) -> None:
    for given in ("photos", "e.npy", "y.csv"):
        (disk / given).symlink_to(whole.folder / given)
    old = disk / "o.csv"
    words = JOBS[name]
    if name == "propagate":
        old.write_text("old")
        words = [*words, "--overwrite"]
    used = pages([p for p in disk.iterdir() if not p.is_symlink()])
    enough = pages([whole.folder / file for file in WRITTEN[name]])
    size = PAGE * (used + 1 + int((enough - 1) * moment / MOMENTS))  # a page too few at the most
    assert mount("-o", f"remount,size={size}", "none", disk)
    done = dlp(words, whole.folder / f"{name}{moment}.log", disk)
    assert done.code == 1, done.out
    assert "Traceback" not in done.out
    assert "mistake in dlp" not in done.out
    assert "No space left on device" in done.out
    if name == "propagate":
        assert old.read_text() == "old"
        assert [p.name for p in disk.iterdir() if not p.is_symlink()] == ["o.csv"]
    assert mount("-o", f"remount,size={ROOM}", "none", disk)
    if name == "run" and (disk / "run" / "recipe.toml").is_file():
        words = [*words, "--resume"]
    again(words, disk)
    if name == "run":
        check_same_run(disk / "run", whole.folder / "run")
    for file in WRITTEN[name] * (name != "run"):
        assert (disk / file).read_bytes() == (whole.folder / file).read_bytes()


def test_a_propagation_through_files_that_finds_no_room_goes_on(whole: Whole, disk: Path) -> None:
    for given in ("e.npy", "y.csv"):
        (disk / given).symlink_to(whole.folder / given)
    ended = []
    for pages in (10, 130, 190, 230, 1000):  # stops in one stage after the other, then has room
        assert mount("-o", f"remount,size={PAGE * pages}", "none", disk)
        done = dlp([*STORED, "--resume"], whole.folder / f"stored{pages}.log", disk)
        if done.code == 0:
            break
        assert done.code == 1, done.out
        assert "Traceback" not in done.out
        assert "No space left on device" in done.out
        ended.append(sorted(p.name for p in disk.glob("o.csv.work/*") if p.is_dir()))
    assert (disk / "o.csv").is_file()
    assert len(ended) > 1
    assert ended[-1] != []
    assert mount("-o", f"remount,size={ROOM}", "none", disk)
    whole_table = disk / "p.csv"
    words = ["p.csv" if word == "o.csv" else word for word in STORED]
    again(words, disk)
    assert (disk / "o.csv").read_bytes() == whole_table.read_bytes()
    assert not (disk / "o.csv.work").exists()
