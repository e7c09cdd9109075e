"""The run folder: nothing of the user's is lost, one process at a time, whole files only."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from dlp_plugins._files import lock as lock_module
from dlp_plugins._files import writing
from dlp_plugins._files.lock import Lock
from dlp_plugins.errors import RunFolderError, SaveError
from dlp_plugins.training.folder import FORMAT, RunFolder, write_json


def make_run(path: Path, *, done: bool = True) -> RunFolder:
    """What a run leaves, without training."""
    folder = RunFolder(path)
    with folder.new():
        write_json(folder.environment, {"format": FORMAT, "packages": {}})
        write_json(folder.labeled_indices, {})
        folder.recipe.write_text("seed = 0\n")
        (path / "metrics.jsonl").write_text("")
        folder.training.write_bytes(b"x")
        if done:
            write_json(folder.summary, {"test_error": 1.0})
    return folder


def overwrite(path: Path, *inputs: Path) -> None:
    with RunFolder(path).new(overwrite=True, inputs=inputs):
        pass


def names(path: Path) -> set[str]:
    return {str(p.relative_to(path)) for p in path.rglob("*")}


# -- overwriting ----------------------------------------------------------------------------------


def test_overwrite_empties_a_run_folder(tmp_path):
    folder = make_run(tmp_path / "run")
    overwrite(folder.path)
    assert names(folder.path) == {"checkpoint"}


def test_overwrite_removes_the_summary_first_and_the_environment_last(tmp_path, monkeypatch):
    folder, removed, real = make_run(tmp_path / "run"), [], Path.unlink

    def unlink(path, missing_ok=False):
        if path.exists():
            removed.append(path.name)
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    overwrite(folder.path)
    assert removed[0] == "summary.json"
    assert removed[-3:] == ["recipe.toml", "environment.json", ".lock"]


@pytest.mark.parametrize("name", ["thesis.tex", "photos/cat.png", "checkpoint/mine.safetensors"])
def test_overwrite_refuses_a_run_folder_that_holds_anything_else(name, tmp_path):
    folder = make_run(tmp_path / "run")
    (folder.path / name).parent.mkdir(exist_ok=True)
    (folder.path / name).write_text("years of work")
    before = names(folder.path)
    with pytest.raises(RunFolderError, match=f"holds {name.split('/')[0 if '/c' in name else -1]}"):
        overwrite(folder.path)
    assert names(folder.path) == before


def test_overwrite_refuses_a_folder_of_the_users_own_recipe(tmp_path):
    (tmp_path / "recipe.toml").write_text('extends = "digits"\n')
    with pytest.raises(RunFolderError, match="holds no environment"):
        overwrite(tmp_path)
    assert (tmp_path / "recipe.toml").read_text() == 'extends = "digits"\n'


@pytest.mark.parametrize("there", [".", "below"])
def test_overwrite_refuses_the_working_directory_and_what_holds_it(there, tmp_path, monkeypatch):
    folder = make_run(tmp_path / "run")
    (folder.path / there).mkdir(exist_ok=True)
    monkeypatch.chdir(folder.path / there)
    with pytest.raises(RunFolderError, match="working directory"):
        overwrite(Path("." if there == "." else ".."))
    assert folder.summary.exists()


@pytest.mark.parametrize("name", ["recipe.toml", "labeled_indices.json", "."])
def test_overwrite_refuses_a_folder_that_holds_an_input_of_the_new_run(name, tmp_path):
    folder = make_run(tmp_path / "run")
    with pytest.raises(RunFolderError, match="which the new run reads"):
        overwrite(folder.path, folder.path / name)
    assert folder.summary.exists()


def test_overwrite_removes_links_and_not_what_they_point_to(tmp_path):
    folder = make_run(tmp_path / "run")
    (tmp_path / "precious").write_text("precious")
    folder.pseudo_labels.unlink(missing_ok=True)
    folder.pseudo_labels.symlink_to(tmp_path / "precious")
    overwrite(folder.path)
    assert (tmp_path / "precious").read_text() == "precious"
    assert not folder.pseudo_labels.is_symlink()


def test_overwrite_refuses_a_checkpoint_folder_that_is_a_link(tmp_path):
    folder = make_run(tmp_path / "run")
    folder.checkpoint.rename(tmp_path / "elsewhere")
    folder.checkpoint.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunFolderError, match="holds checkpoint"):
        overwrite(folder.path)
    assert (tmp_path / "elsewhere" / "training.safetensors").exists()


def test_without_overwrite_a_run_is_kept_and_the_ways_out_are_named(tmp_path):
    folder = make_run(tmp_path / "run", done=False)
    with pytest.raises(RunFolderError, match=r"--resume.*--overwrite.*--out"), folder.new():
        pass
    assert folder.recipe.exists()


def test_a_file_in_the_folders_place_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunFolderError, match="is not a folder"):
        RunFolder(tmp_path / "file").check_free(overwrite=True)


def test_a_folder_killed_before_its_recipe_was_written_counts_as_empty(tmp_path):
    folder = RunFolder(tmp_path)
    write_json(folder.environment, {"format": FORMAT, "packages": {}})
    write_json(folder.labeled_indices, {})
    (tmp_path / ".recipe.toml.0123456789abcdef.tmp").write_text("half")
    folder.check_free()
    with folder.new():
        assert names(tmp_path) == {"checkpoint", ".lock"}


def test_a_folder_of_nothing_but_a_temporary_file_counts_as_empty(tmp_path):
    (tmp_path / ".environment.json.0123456789abcdef.tmp").write_text("half")
    with RunFolder(tmp_path).new():
        assert names(tmp_path) == {"checkpoint", ".lock"}


def test_a_users_own_file_with_a_name_that_a_run_uses_is_kept(tmp_path):
    (tmp_path / "model.json").write_text("mine")
    with pytest.raises(RunFolderError, match="left alone"), RunFolder(tmp_path).new():
        pass
    assert (tmp_path / "model.json").read_text() == "mine"


def test_a_folder_without_permission_is_a_sentence(tmp_path, monkeypatch):
    def denied(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(RunFolderError, match="Permission denied"):
        RunFolder(tmp_path).check_free()


# -- the format -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"packages": {}}, "was made by version 0.1"),
        ({"packages": {}, "format": 99}, "format 99"),
        ([], "was not made by a run"),
    ],
)
def test_a_folder_of_another_version_is_refused_in_a_sentence(environment, message, tmp_path):
    folder = make_run(tmp_path / "run")
    folder.environment.write_text(json.dumps(environment))
    with pytest.raises(RunFolderError, match=message):
        folder.check_format()


# -- one process at a time ------------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
from dlp_plugins._files.lock import Lock
with Lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_second_process_is_refused_and_a_dead_ones_lock_is_taken_over(tmp_path):
    path = tmp_path / ".lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(RunFolderError, match=f"in use by process {holder.pid} on "), Lock(path):
        pass
    holder.kill()
    holder.communicate()
    assert path.exists()
    with Lock(path):
        assert json.loads(path.read_text())["process"] == os.getpid()
    assert not path.exists()


def test_a_second_run_in_the_same_process_is_refused(tmp_path):
    path = tmp_path / ".lock"
    with Lock(path):
        with pytest.raises(RunFolderError, match=f"process {os.getpid()}"), Lock(path):
            pass
        assert path.exists()
    with Lock(path):
        pass


def test_another_machines_lock_is_respected_and_the_file_named(tmp_path):
    path = tmp_path / ".lock"
    path.write_text(json.dumps({"process": 1, "host": "elsewhere", "boot": "b", "since": "now"}))
    with (
        pytest.raises(RunFolderError, match=r"process 1 on elsewhere.*delete .*\.lock"),
        Lock(path),
    ):
        pass
    assert path.exists()


def test_a_damaged_lock_file_of_nobody_is_taken_over(tmp_path):
    path = tmp_path / ".lock"
    path.write_text("{half")
    with Lock(path):
        pass


def test_without_locks_of_the_file_system_a_living_holder_is_respected(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(lock_module.fcntl, "lockf", none)
    path = tmp_path / ".lock"
    holder = lock_module._this_process()
    path.write_text(json.dumps({**holder, "process": os.getppid()}))
    with pytest.raises(RunFolderError, match="in use"), Lock(path):
        pass
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    path.write_text(json.dumps({**holder, "process": dead.pid}))
    with Lock(path):
        pass


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path)])
def test_a_pipe_or_link_in_the_locks_place_is_refused_and_does_not_hang(make, tmp_path):
    make(tmp_path / ".lock")
    with pytest.raises(SaveError, match=r"\.lock"), Lock(tmp_path / ".lock"):
        pass


def test_a_full_disk_is_a_save_error_and_leaves_the_lock_free(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(SaveError, match="No space left on device"), Lock(tmp_path / ".lock"):
            pass
    with Lock(tmp_path / ".lock"):
        pass


def test_two_runs_in_one_folder_exclude_each_other(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with (
        folder.new(),
        pytest.raises(RunFolderError, match="in use"),
        RunFolder(tmp_path / "run").new(),
    ):
        pass


# -- whole files ----------------------------------------------------------------------------------


def test_a_link_in_a_temporary_names_place_is_never_followed(tmp_path):
    (tmp_path / "bashrc").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".summary.json.tmp").symlink_to(tmp_path / "bashrc")
    (tmp_path / "run" / "summary.json").symlink_to(tmp_path / "bashrc")
    write_json(tmp_path / "run" / "summary.json", {"a": 1})
    assert (tmp_path / "bashrc").read_text() == "mine"
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == {"a": 1}


def test_a_pipe_in_a_files_place_is_replaced_and_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "summary.json")
    os.mkfifo(tmp_path / ".summary.json.tmp")
    write_json(tmp_path / "summary.json", {"a": 1})
    assert json.loads((tmp_path / "summary.json").read_text()) == {"a": 1}


def test_two_writers_of_one_file_do_not_share_a_temporary_file(tmp_path):
    path = tmp_path / "x"
    with writing.replacing(path) as one, writing.replacing(path) as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one"
    assert names(tmp_path) == {"x"}


def test_a_file_has_the_mode_that_the_umask_leaves(tmp_path):
    former = os.umask(0o027)
    try:
        write_json(tmp_path / "x", 1)
    finally:
        os.umask(former)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "x").write_text("old")
    with pytest.raises(SaveError, match=r"No space left.*--resume"):
        _full(tmp_path / "x")
    assert names(tmp_path) == {"x"}
    assert (tmp_path / "x").read_text() == "old"


def _full(path: Path) -> None:
    with writing.replacing(path, "Continue with --resume.") as temporary:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")


def test_a_limit_of_the_system_itself_is_a_save_error(tmp_path):
    (tmp_path / "summary.json").write_text("old")
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, former[1]))
    try:
        with pytest.raises(SaveError, match="File too large"):
            write_json(tmp_path / "summary.json", {"test_error": 1.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    assert (tmp_path / "summary.json").read_text() == "old"
    assert names(tmp_path) == {"summary.json"}


def test_a_folder_that_is_gone_is_named_and_not_made_again(tmp_path):
    with pytest.raises(SaveError, match=r"there is no folder .*gone.*moved or removed"):
        write_json(tmp_path / "gone" / "x", 1)
    assert names(tmp_path) == set()
