"""Files from somebody else: nothing in them is executed, and they open no file elsewhere."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tomli_w
from child import Done, dlp
from places import ROOT
from small_jobs import Whole

from dlp_plugins import load
from dlp_plugins.errors import DlpError

STARTED = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen")
FORBIDDEN = (*STARTED, "socket.connect", "pickle.find_class")
OURS = (
    str(ROOT), sys.prefix, sys.base_prefix, *filter(None, sys.path),
    "/usr/", "/lib", "/proc/", "/sys/", "/dev/", "/etc/",
)  # fmt: skip


PREDICT = ["predict", "run", "photos", "--out", "../out/o.csv"]
MODEL = {"classes": ["a"], "shape": [1, 8, 8], "mean": [0.5], "std": [1.0], "dtype": "uint8"}


@pytest.fixture
def stranger(whole: Whole, tmp_path: Path) -> Path:
    """A folder of somebody else's files, beside a secret of ours."""
    folder = tmp_path / "theirs"
    shutil.copytree(whole.folder, folder, symlinks=True)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key.toml").write_text("key = 1")
    shutil.copy(whole.folder / "photos" / "0" / "0.png", tmp_path / "secret" / "0.png")
    (tmp_path / "out").mkdir()
    return folder


def watched(words: list[str], folder: Path) -> Done:
    """The command, which may open files of its own folder and of the programs, and `../out`."""
    events = folder.parent / "events"
    done = dlp(words, folder.parent / "log", folder, watch=events)
    assert "Traceback" not in done.out
    assert "mistake in dlp" not in done.out, done.out
    for line in events.read_text(errors="replace").splitlines():
        event, _, name = line.partition("\t")
        assert event not in FORBIDDEN, line
        if event in ("open", "os.listdir") and name.startswith("/"):
            assert "/secret" not in name, line
            beside = str(folder.parent / "out")
            allowed = (str(folder), beside, *OURS, str(Path.home() / ".cache"), "/tmp/tmp")
            assert name.startswith(allowed), line
        assert not name.startswith("../secret"), line
    return done


def edit_recipe(run: Path, **tables: dict) -> None:
    found = tomllib.loads((run / "recipe.toml").read_text())
    for key, values in tables.items():
        found[key] = {**found[key], **values} if isinstance(values, dict) else values
    (run / "recipe.toml").write_text(tomli_w.dumps(found))


def test_watching_sees_what_is_forbidden(stranger: Path) -> None:
    """Or the tests below show nothing."""
    (stranger / "mine.py").write_text("import os\nos.system('true')\n")
    with pytest.raises(AssertionError, match=r"os\.system"):
        watched(["list", "weighters", "--plugin", "mine.py"], stranger)
    (stranger.parent / "events").unlink()
    (stranger / "mine.py").write_text("open('../secret/key.toml').read()\n")
    with pytest.raises(AssertionError, match="secret"):
        watched(["list", "weighters", "--plugin", "mine.py"], stranger)


def test_a_run_folder_is_used_without_what_its_recipe_names(stranger: Path) -> None:
    secret = str(stranger.parent / "secret")
    edit_recipe(
        stranger / "run",
        dataset={"name": "imagefolder", "root": secret, "labeled_indices": f"{secret}/key.toml"},
    )
    recipe = tomllib.loads((stranger / "run/recipe.toml").read_text())
    recipe["dataset"] = {k: v for k, v in recipe["dataset"].items() if k != "path"}
    (stranger / "run/recipe.toml").write_text(tomli_w.dumps(recipe))
    done = watched(PREDICT, stranger)
    assert done.code == 0 or "takes no photos" in done.out, done.out


def test_a_run_folder_reads_no_weights_elsewhere(stranger: Path) -> None:
    backbone = {"name": "timm:resnet10t", "weights_file": str(stranger.parent / "secret/key.toml")}
    recipe = tomllib.loads((stranger / "run/recipe.toml").read_text())
    kept = ("normalize_descriptor", "weight_norm_heads")
    recipe["backbone"] = {k: v for k, v in recipe["backbone"].items() if k in kept} | backbone
    (stranger / "run/recipe.toml").write_text(tomli_w.dumps(recipe))
    done = watched(PREDICT, stranger)
    assert done.code == 1
    assert "does not fit the network" in done.out


def test_a_run_folders_recipe_extends_no_other_file(stranger: Path) -> None:
    path = stranger / "run/recipe.toml"
    path.write_text(f"extends = '{stranger.parent}/secret/key.toml'\n" + path.read_text())
    done = watched(PREDICT, stranger)
    assert done.code == 2
    assert "extends: unknown key" in done.out


def test_plug_ins_of_a_run_folder_are_not_loaded(stranger: Path) -> None:
    (stranger / "run/mine.py").write_text("raise SystemExit('executed')")
    about = json.loads((stranger / "run/environment.json").read_text())
    about["plugins"] = [{"path": str(stranger / "run/mine.py"), "sha256": "0"}]
    (stranger / "run/environment.json").write_text(json.dumps(about))
    for words in (PREDICT, ["report", "run", "--out", "../out/r.html"]):
        assert "executed" not in watched(words, stranger).out


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("model.json", json.dumps(MODEL | {"shape": [10**9, 9, 9]})),
        ("model.json", json.dumps(MODEL | {"classes": 7})),
        ("model.json", json.dumps(MODEL | {"mean": ["x"]})),
        ("model.json", json.dumps(MODEL | {"dtype": "load"})),
        ("model.json", json.dumps(MODEL)),  # another number of classes
        ("model.json", "[" * 100_000),
        ("environment.json", "[" * 100_000),
        ("recipe.toml", "x = " + "[" * 100_000),
        ("checkpoint/student.safetensors", ""),
    ],
)  # fmt: skip
def test_a_run_folder_that_claims_anything_is_a_sentence(
    name: str, text: str, stranger: Path
) -> None:
    (stranger / "run" / name).write_text(text)
    with pytest.raises(DlpError, match=name.split("/")[-1].split(".")[0] + r"|was not made by"):
        load(stranger / "run")


def test_checkpoints_hold_tensors_and_no_code(stranger: Path) -> None:
    import pickle

    (stranger / "run/checkpoint/student.safetensors").write_bytes(pickle.dumps(Path("x")))
    done = watched(PREDICT, stranger)
    assert "is damaged" in done.out


def test_arrays_of_objects_are_not_unpickled(stranger: Path) -> None:
    np.save(stranger / "o.npy", np.array([{"a": 1}], dtype=object))
    np.savez(stranger / "o.npz", x=np.array([{"a": 1}], dtype=object))
    for name in ("o.npy", "o.npz"):
        for words in (
            ["propagate", name, "--labels", "y.csv", "--out", "../out/o.csv"],
            ["propagate", "e.npy", "--labels", name, "--out", "../out/o.csv"],
            ["propagate", "e.npy", "--labels", "y.csv", "--ids", name, "--out", "../out/o.csv"],
            ["propagate", "e.npy", "--labels", "y.csv", "--prior", name, "--out", "../out/o.csv"],
        ):
            assert watched(words, stranger).code in (1, 2)


def test_tables_and_images_name_files_that_are_not_opened(stranger: Path) -> None:
    secret = str(stranger.parent / "secret" / "0.png")
    rows = [{"bytes": None, "path": secret}, {"bytes": b"%!PS-Adobe-3.0\n", "path": "x"}]
    pq.write_table(pa.table({"image": rows}), stranger / "i.parquet")
    done = watched(["embed", "i.parquet", "--out", "../out/x.npy", "--size", "32"], stranger)
    assert done.code == 1
    assert "2 of 2 images cannot be read" in done.out
    few = "\n".join([f"{secret}", "=cmd|'x'!A0", "$(touch x)", *[""] * 1794])
    (stranger / "y.csv").write_text(few + "\n")
    done = watched(["propagate", "e.npy", "--labels", "y.csv", "--out", "../out/o.csv"], stranger)
    assert done.code == 0, done.out


def test_memory_is_bounded_by_the_limit_of_the_process(stranger: Path) -> None:
    """A recipe's huge network ends in a sentence, where the system sets a limit."""
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30))\n"
        "from dlp_cli.app import main\n"
        "sys.argv = ['dlp', 'run', 'digits', '--set', 'backbone.width=1000000', '--out', 'r']\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=stranger, capture_output=True, text=True, timeout=120
    )
    assert done.returncode in (1, 2), done.stderr
    assert done.stderr.startswith("error: ")
    assert "mistake in dlp" not in done.stderr, done.stderr
