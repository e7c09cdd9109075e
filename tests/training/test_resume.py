"""Resuming: from the newest state that is whole, with the data and plug-ins of the start."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from dlp_plugins.datasets._files import FileReader
from dlp_plugins.datasets.contract import LazyImages, TensorImages
from dlp_plugins.errors import DataError, PluginError, RunFolderError, UsageError
from dlp_plugins.recipe.check import load_recipe
from dlp_plugins.training import checkpoint, events
from dlp_plugins.training.data import fingerprint
from dlp_plugins.training.folder import FORMAT, RunFolder, write_json
from dlp_plugins.training.request import prepare
from dlp_plugins.training.resume import check_same_data, last_saved
from dlp_plugins.training.run import run

TINY = [
    "dataset.num_train=120", "dataset.num_test=50", "dataset.num_labeled=20", "backbone.width=4",
    "training.stage_one_epochs=2", "training.stage_one_steps=3", "training.stage_two_epochs=2",
    "training.checkpoint_seconds=0",
]  # fmt: skip
TIMES = {"seconds", "images_per_second", "propagation_seconds", "peak_memory_mb"}


class Killed(BaseException):
    """Like a kill: passes through everything."""


def stop_at(kind: type, count: int):
    seen = 0

    def listen(event):
        nonlocal seen
        seen += isinstance(event, kind)
        if isinstance(event, kind) and seen == count:
            raise Killed

    return listen


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(load_recipe("digits", TINY), folder)
    return folder


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Path:
    """A run that was killed in stage two."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    with pytest.raises(Killed):
        run(load_recipe("digits", TINY), folder, listeners=[stop_at(events.CheckpointSaved, 9)])
    return folder


@pytest.fixture
def broken(killed, tmp_path) -> Path:
    return Path(shutil.copytree(killed, tmp_path / "broken"))


def resume(folder: Path) -> list[str]:
    """Resume and return what a person was told."""
    notes: list[str] = []

    def listen(event):
        if isinstance(event, events.Note):
            notes.append(event.text)

    run(load_recipe("digits", TINY), folder, resume=True, listeners=[listen])
    return notes


def lines(folder: Path) -> list[dict]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in found]


def damage(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 8
    path.write_bytes(raw)


# -- which state ----------------------------------------------------------------------------------


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_it(broken, whole):
    damage(RunFolder(broken).training)
    (note,) = resume(broken)
    assert "training.safetensors is damaged" in note
    assert "continues from the checkpoint before it" in note
    assert lines(broken) == lines(whole)


def test_without_a_checkpoint_a_run_continues_from_the_end_of_stage_one(broken, whole):
    RunFolder(broken).training.unlink()
    RunFolder(broken).training_previous.unlink()
    (note,) = resume(broken)
    assert "continues from the end of stage one" in note
    assert lines(broken) == lines(whole)


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    """Three saved states: epoch 1 is the end of stage one, 3 the newest."""
    made = RunFolder(tmp_path)
    made.checkpoint.mkdir()
    for epoch, path in enumerate((made.stage_one, made.training_previous, made.training), 1):
        checkpoint.save(path, {"x": torch.zeros(4)}, {"epoch": epoch})
    return made


def test_the_newest_checkpoint_is_used_without_a_word(folder):
    saved = last_saved(folder)
    assert saved is not None
    assert (saved.numbers["epoch"], saved.note) == (3, "")


def test_killed_between_the_two_renames_of_a_save_the_previous_checkpoint_is_used(folder):
    folder.training.unlink()
    saved = last_saved(folder)
    assert saved is not None
    assert saved.numbers["epoch"] == 2
    assert "is missing" in saved.note


def test_two_damaged_checkpoints_are_an_error_that_names_what_can_be_used(folder):
    damage(folder.training)
    damage(folder.training_previous)
    with pytest.raises(DataError) as error:
        last_saved(folder)
    assert str(error.value).count("is damaged") == 2
    assert "stage_one.safetensors is intact: remove the damaged files" in str(error.value)


def test_nothing_whole_is_an_error_and_never_a_fresh_start(folder):
    for path in folder.checkpoint.iterdir():
        damage(path)
    with pytest.raises(DataError, match=r"Nothing else in .* can be continued"):
        last_saved(folder)
    folder.training.unlink()
    folder.training_previous.unlink()
    with pytest.raises(DataError, match=r"Nothing else in .* can be continued"):
        last_saved(folder)


def test_killed_before_the_first_checkpoint_a_run_starts_again_and_says_so(tmp_path, whole):
    settings = {"training.checkpoint_seconds": 1000.0}
    recipe = load_recipe("digits", TINY)
    with pytest.raises(Killed):
        run(recipe, tmp_path / "x", **settings, listeners=[stop_at(events.EpochDone, 1)])
    (note,) = resume(tmp_path / "x")
    assert "holds no checkpoint; the run starts from the beginning" in note
    assert lines(tmp_path / "x") == lines(whole)


# -- the same data --------------------------------------------------------------------------------


RECORD = {
    "labeled_indices": [1, 2],
    "validation_indices": [],
    "num_train": 9,
    "data": {"training images": "a", "test images": "b"},
}
EVERYTHING = (
    "training images, test images, labeled indices, validation indices, num train. Put the data"
)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"labeled_indices": [1, 3]}, "labeled indices"),
        ({"num_train": 8}, "num train"),
        ({"data": {"training images": "c", "test images": "b"}}, "training images"),
        ({"data": {"training images": "a", "test images": "c"}}, "test images"),
    ],
)
def test_other_data_than_at_the_start_are_refused(change, named, tmp_path):
    folder = RunFolder(tmp_path)
    write_json(folder.labeled_indices, RECORD)
    check_same_data(folder, RECORD)
    with pytest.raises(RunFolderError, match=f"other data; changed since then: {named}"):
        check_same_data(folder, {**RECORD, **change})


@pytest.mark.parametrize(
    ("text", "error", "sentence"),
    [
        ("{half", DataError, r"labeled_indices\.json cannot be read: .*Put an intact copy"),
        ("[]", RunFolderError, f"changed since then: {EVERYTHING}"),
        ("{}", RunFolderError, f"changed since then: {EVERYTHING}"),
        ('{"data": 3}', RunFolderError, f"changed since then: {EVERYTHING}"),
    ],
)
def test_a_damaged_record_of_the_data_is_no_reason_to_go_on(text, error, sentence, tmp_path):
    folder = RunFolder(tmp_path)
    with pytest.raises(DataError, match="is missing"):
        check_same_data(folder, RECORD)
    folder.labeled_indices.write_text(text)
    with pytest.raises(error, match=sentence):
        check_same_data(folder, RECORD)


def test_a_changed_index_file_is_refused_on_resume(broken, tmp_path):
    record = json.loads((broken / "labeled_indices.json").read_text())
    record["labeled_indices"][0] += 1
    (broken / "labeled_indices.json").write_text(json.dumps(record))
    with pytest.raises(RunFolderError, match="labeled indices"):
        resume(broken)


def lazy(names: list[str], labels: list[int], root: str = "/data") -> LazyImages:
    paths = [Path(root) / name for name in names]
    return LazyImages(FileReader(paths, 4), torch.tensor(labels), (3, 4, 4))


def test_an_image_more_or_renamed_or_another_label_or_class_is_seen():
    names, classes = ["a/1.png", "a/2.png", "b/1.png"], ("a", "b")
    base = fingerprint(lazy(names, [0, 0, 1]), classes)
    assert fingerprint(lazy([*names, "b/2.png"], [0, 0, 1, 1]), classes) != base
    assert fingerprint(lazy(["a/1.png", "a/3.png", "b/1.png"], [0, 0, 1]), classes) != base
    assert fingerprint(lazy(names, [0, 1, 1]), classes) != base
    assert fingerprint(lazy(names, [0, 0, 1]), ("a", "c")) != base
    assert fingerprint(lazy(names, [0, 0, 1], root="/elsewhere"), classes) == base


def test_another_pixel_in_memory_is_seen():
    images = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    base = fingerprint(TensorImages(images, torch.tensor([0, 1])), ("a", "b"))
    images = images.clone()
    images[1, 0, 3, 3] = 1
    assert fingerprint(TensorImages(images, torch.tensor([0, 1])), ("a", "b")) != base


# -- the same plug-ins ----------------------------------------------------------------------------


@pytest.fixture
def started(tmp_path) -> Path:
    """A folder as a run with the plug-in file mine.py leaves it."""
    plugin = tmp_path / "mine.py"
    plugin.write_text("# nothing to register\n")
    request = prepare("digits", tmp_path / "run", plugins=[plugin])
    with request.folder.new():
        plugins = [p.as_dict() for p in request.plugins]
        write_json(
            request.folder.environment, {"format": FORMAT, "packages": {}, "plugins": plugins}
        )
        request.folder.recipe.write_text(request.recipe.to_toml())
    return tmp_path


def test_resume_asks_for_the_plug_in_files_of_the_start(started):
    with pytest.raises(RunFolderError, match=r"Add --plugin .*mine\.py"):
        prepare("digits", started / "run", resume=True)
    prepare("digits", started / "run", resume=True, plugins=[started / "mine.py"])


def test_resume_takes_the_same_plug_in_from_another_place(started):
    (started / "moved.py").write_text((started / "mine.py").read_text())
    prepare("digits", started / "run", resume=True, plugins=[started / "moved.py"])


def test_resume_refuses_a_plug_in_file_that_has_changed(started):
    (started / "mine.py").write_text("# something else\n")
    with pytest.raises(RunFolderError, match="another version of the plug-in file"):
        prepare("digits", started / "run", resume=True, plugins=[started / "mine.py"])


def test_resume_never_loads_a_plug_in_that_only_the_folder_names(started):
    (started / "mine.py").write_text("raise SystemExit('stranger code ran')")
    with pytest.raises(RunFolderError, match="Add --plugin"):
        prepare("digits", started / "run", resume=True)


def test_a_plug_in_that_is_not_there_is_named(tmp_path):
    with pytest.raises(PluginError, match=r"nowhere\.py: there is no such file"):
        prepare("digits", tmp_path / "run", plugins=[tmp_path / "nowhere.py"])


# -- requests -------------------------------------------------------------------------------------


def test_settings_are_keywords_with_dots_or_tables(tmp_path):
    recipe = prepare(
        "digits",
        tmp_path,
        settings={"seed": 3, "solver": "power", "solver.alpha": 0.5, "graph": {"k": 7}},
    ).recipe
    assert (recipe.seed, recipe.solver.name, recipe.solver.params["alpha"]) == (3, "power", 0.5)
    assert recipe.graph.params["k"] == 7
    again = prepare(recipe, tmp_path, settings={"solver.alpha": 0.4}).recipe
    assert (again.solver.name, again.solver.params["alpha"], again.seed) == ("power", 0.4, 3)


def test_the_folder_is_named_after_recipe_and_seed():
    assert prepare("digits").folder.path == Path("runs/digits-seed0")
    assert prepare("digits", settings={"seed": 4}).folder.path == Path("runs/digits-seed4")
    with pytest.raises(UsageError, match="give `out`"):
        prepare(load_recipe("digits"))


def test_overwrite_refuses_a_folder_of_the_recipe_that_it_would_run(started):
    recipe = started / "run" / "recipe.toml"
    with pytest.raises(RunFolderError, match=r"recipe\.toml, which the new run reads"):
        prepare(recipe, started / "run", overwrite=True)
    assert recipe.exists()
