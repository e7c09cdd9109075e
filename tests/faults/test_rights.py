"""A user without rights, a file system that cannot be written: a sentence that names the file."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from child import dlp
from small_jobs import BENCH, EMBED, PROPAGATE, RUN, Whole


@pytest.fixture
def home(whole: Whole, tmp_path: Path) -> Iterator[Path]:
    """A copy of all that the commands read and wrote."""
    place = tmp_path / "home"
    shutil.copytree(whole.folder, place, symlinks=True)
    (place / "plugin.py").write_text("")
    (tmp_path / "mine").mkdir()
    yield place
    subprocess.run(["chmod", "-R", "u+rwX", str(place)], check=True)


TABLE = ["propagate", "e.npy", "--labels", "y.csv", "--out", "../mine/o.csv"]
# Which file nobody may read, the command, and what is named.
UNREADABLE = [
    ("e.npy", TABLE, "e.npy"),
    ("y.csv", TABLE, "y.csv"),
    ("e.npy", ["suggest", "e.npy", "--labels", "y.csv", "--out", "../mine/o.csv"], "e.npy"),
    ("e.npy", ["audit", "e.npy", "--labels", "y.csv", "--out", "../mine/o.csv"], "e.npy"),
    ("y.csv", ["explain", "e.npy", "--labels", "y.csv", "--point", "3"], "y.csv"),
    ("photos/0/0.png", ["embed", "photos", "--out", "../mine/x.npy", "--size", "32"], "0.png"),
    ("photos", ["embed", "photos", "--out", "../mine/x.npy", "--size", "32"], "photos"),
    ("photos/0", ["embed", "photos", "--out", "../mine/x.npy", "--size", "32"], "photos"),
    ("run/recipe.toml", ["run", "run/recipe.toml", "--out", "../mine/r"], "recipe.toml"),
    ("run/recipe.toml", ["check", "run/recipe.toml"], "recipe.toml"),
    ("run/recipe.toml", ["predict", "run", "photos", "--out", "../mine/o.csv"], "recipe.toml"),
    ("run/model.json", ["predict", "run", "photos", "--out", "../mine/o.csv"], "model.json"),
    (
        "run/checkpoint/student.safetensors",
        ["predict", "run", "photos", "--out", "../mine/o.csv"],
        "student.safetensors",
    ),
    ("run/checkpoint", ["predict", "run", "photos", "--out", "../mine/o.csv"], "student"),
    ("run", ["predict", "run", "photos", "--out", "../mine/o.csv"], "run"),
    ("run/metrics.jsonl", ["report", "run", "--out", "../mine/r.html"], "metrics.jsonl"),
    ("run", ["report", "run", "--out", "../mine/r.html"], "run"),
    ("plugin.py", ["list", "--plugin", "plugin.py"], "plugin.py"),
    ("bench/results.json", ["report", "bench", "--out", "../mine/r.html"], "results.json"),
]  # fmt: skip
UNWRITABLE = [
    [*RUN, "--out", "new"], [*RUN, "--out", "run", "--overwrite"], [*EMBED, "--overwrite"],
    [*PROPAGATE, "--overwrite"], [*BENCH[:-2], "--out", "new"],
    ["suggest", "e.npy", "--labels", "y.csv", "--out", "s.csv"],
    ["audit", "e.npy", "--labels", "y.csv", "--out", "a.csv"],
    ["report", "run", "--out", "r.html"],
    [*TABLE, "--save-index", "i.safetensors"],
]  # fmt: skip


def check(words: list[str], home: Path, named: str) -> None:
    done = dlp(words, home.parent / "log", home, privileged=False)
    assert done.code in (1, 2), done.out
    assert "error" in done.out.lower()
    assert "Traceback" not in done.out
    assert "mistake in dlp" not in done.out, done.out
    assert named in done.out


@pytest.mark.parametrize(
    ("closed", "words", "named"), UNREADABLE, ids=[f"{w[0]}-{c}" for c, w, _ in UNREADABLE]
)
def test_what_a_user_may_not_read_is_named(
    closed: str, words: list[str], named: str, home: Path
) -> None:
    (home / closed).chmod(0)
    check(words, home, named)
    written = [p.name for p in (home.parent / "mine").iterdir()]
    assert [name for name in written if ".partial" not in name] == []  # embedded so far: kept


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(p.relative_to(folder)): (p.stat().st_size, p.stat().st_mtime_ns)
        for p in folder.rglob("*")
        if p.is_file()
    }


@pytest.mark.parametrize("words", UNWRITABLE, ids=lambda w: " ".join([w[0], *w[-2:]]))
def test_where_a_user_may_not_write_nothing_changes(words: list[str], home: Path) -> None:
    subprocess.run(["chmod", "-R", "a-w", str(home)], check=True)
    before = snapshot(home)
    check(words, home, "Permission denied")
    assert snapshot(home) == before


@pytest.fixture
def read_only(whole: Whole, tmp_path: Path) -> Iterator[Path]:
    """A copy of the same on a file system that is mounted read-only."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "none", str(place)], capture_output=True)
    if made.returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        shutil.copytree(whole.folder, place / "home", symlinks=True)
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        (tmp_path / "logs").mkdir()
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize(
    "words",
    [
        w
        for w in UNWRITABLE
        if w[0] != "bench" and w[-1] != "--resume" and w not in (EMBED, PROPAGATE)
    ],
    ids=lambda w: " ".join([w[0], *w[-2:]]),
)
def test_a_read_only_file_system_is_a_sentence(
    words: list[str], read_only: Path, tmp_path: Path
) -> None:
    words = [w.replace("../mine/", f"{tmp_path}/") for w in words]
    done = dlp(words, tmp_path / "logs" / "log", read_only / "home")
    assert done.code in (1, 2), done.out
    assert "Read-only file system" in done.out
    assert "Traceback" not in done.out
    assert "mistake in dlp" not in done.out


def test_a_run_reads_its_recipe_and_data_from_there(read_only: Path, tmp_path: Path) -> None:
    done = dlp(
        ["run", "run/recipe.toml", "--out", str(tmp_path / "new")],
        tmp_path / "logs" / "log", read_only / "home",
    )  # fmt: skip
    assert done.code == 0, done.out
