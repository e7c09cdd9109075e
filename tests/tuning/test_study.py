"""`dlp tune`: finds the best by validation, stops bad trials, goes on after a break."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dlp_cli.app import app
from places import ROOT
from typer.testing import CliRunner

from dlp_plugins.bench import running
from dlp_plugins.errors import DivergenceError, MissingDependency, RunFolderError, UsageError
from dlp_plugins.registry import KINDS, load_plugin_file
from dlp_plugins.training import events
from dlp_plugins.training.folder import RunFolder
from dlp_plugins.training.run import run as real_run
from dlp_plugins.training.summary import Summary
from dlp_plugins.tuning import study as tuning
from dlp_plugins.tuning.results import Tuned
from dlp_plugins.tuning.study import prepare, tune

pytest.importorskip("optuna", reason="the extra tune")
HELD_OUT = ["dataset.num_validation=50"]
EPOCHS = 4
ALPHA = ["solver.alpha=0.5..0.999"]


class FakeRuns:
    """In place of training: errors that fall with the epochs towards 100 |alpha - 0.9|."""

    def __init__(self) -> None:
        self.folders: list[Path] = []
        self.fail: Callable[[Any], None] = lambda recipe: None

    def __call__(self, recipe: Any, folder: Path, *, listeners: Any, **_: Any) -> Summary:
        self.folders.append(folder)
        self.fail(recipe)
        tell = events.Listeners(listeners)
        last = 100 * abs(recipe.solver.params["alpha"] - 0.9)
        if not recipe.training.stage_two_epochs:  # the shared stage one
            last = 90.0
            for path in (RunFolder(folder).summary, RunFolder(folder).stage_one):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("{}")
        for epoch in range(EPOCHS):
            metrics = {"validation_error": last + EPOCHS - 1 - epoch, "test_error": 0.0}
            tell(events.EpochDone("propagation", epoch, metrics))
        return Summary(best_validation_error=last, test_error=0.0)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeRuns:
    monkeypatch.chdir(tmp_path)
    runs = FakeRuns()
    monkeypatch.setattr(running, "run", runs)
    return runs


def search(trials: int = 12, texts: list[str] = ALPHA, **more: Any) -> Tuned:
    return tune("digits", texts, "study", trials=trials, settings=HELD_OUT, **more)


def test_the_best_is_near_the_best_there_is_and_bad_trials_are_stopped(fake: FakeRuns) -> None:
    found = search(14)
    assert len(found.trials) == 14
    assert found.best is not None
    alpha = float(found.best.settings["solver.alpha"])
    assert abs(alpha - 0.9) < 0.1
    assert found.best.error == pytest.approx(100 * abs(alpha - 0.9))
    assert found.best.set_options == [
        "--set",
        f"solver.alpha={found.best.settings['solver.alpha']}",
    ]
    finished = [t.error for t in found.trials if t.state == "finished"]
    assert finished == sorted(finished)  # type: ignore[type-var]
    stopped = [t for t in found.trials if t.state == "stopped"]
    assert len(stopped) + len(finished) == 14
    assert stopped
    assert {t.epochs for t in stopped} == {3}  # what each has at least
    assert min(t.error for t in stopped) > found.best.error  # type: ignore[type-var]


def test_without_pruning_all_trials_finish(fake: FakeRuns) -> None:
    found = search(7, prune=False)
    assert {t.state for t in found.trials} == {"finished"}


def test_a_stage_one_that_all_share_is_trained_once(fake: FakeRuns) -> None:
    search(2)
    assert sum("_stage_one" in str(folder) for folder in fake.folders) == 1
    fake.folders.clear()
    tune("digits", ["training.batch_size=50..100"], "b", trials=2, settings=HELD_OUT)
    assert not any("_stage_one" in str(folder) for folder in fake.folders)


def test_lists_are_tried_each_once(fake: FakeRuns) -> None:
    found = search(50, ["solver.alpha=0.8,0.9", "graph.k=5,10"])
    assert len({tuple(t.settings.values()) for t in found.trials}) == len(found.trials) == 4
    assert found.best.settings["solver.alpha"] == "0.9"  # type: ignore[union-attr]


def test_fewer_trials_than_lists_allow_never_repeat_one(fake: FakeRuns) -> None:
    lists = ["solver.alpha=0.8,0.9", "graph.k=5,10,20"]

    def interrupted(recipe: Any) -> None:
        if len(fake.folders) == 4:
            raise KeyboardInterrupt

    fake.fail = interrupted
    with pytest.raises(KeyboardInterrupt):
        search(4, lists, prune=False)
    fake.fail = lambda recipe: None
    for trials in (4, 5, 6):
        found = search(trials, lists, prune=False)
        tried = {tuple(t.settings.values()) for t in found.trials}
        assert len(tried) == len(found.trials) == trials
        assert {t.epochs for t in found.trials} == {EPOCHS}


def test_the_study_goes_on_where_it_stood(fake: FakeRuns) -> None:
    first = search(3)
    again = search(3)  # nothing left to do
    assert again == first
    assert len(fake.folders) == 4
    more = search(5)
    assert len(more.trials) == 5
    assert set(map(str, first.trials)) <= set(map(str, more.trials))
    values = [t.settings["solver.alpha"] for t in more.trials]
    assert len(set(values)) == 5  # it does not propose its first settings again


def test_a_trial_that_was_broken_off_is_tried_again(fake: FakeRuns) -> None:
    def broken_off(recipe: Any) -> None:
        if len(fake.folders) == 3:
            raise KeyboardInterrupt

    fake.fail = broken_off
    with pytest.raises(KeyboardInterrupt):
        search(3)
    fake.fail = lambda recipe: None
    found = search(3)
    assert fake.folders[3] == fake.folders[2]  # the same settings, in the folder to resume
    assert len(found.trials) == 3
    assert all(t.state != "failed" for t in found.trials)


def test_a_trial_that_fails_is_kept_and_the_others_go_on(fake: FakeRuns) -> None:
    def diverged(recipe: Any) -> None:
        if len(fake.folders) == 3:
            raise DivergenceError("Training has diverged.")

    fake.fail = diverged
    found = search(3)
    (failed,) = (t for t in found.trials if t.state == "failed")
    assert (failed.problem, failed.error) == ("Training has diverged.", None)
    assert found.trials[-1] == failed
    with Path("study/trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["state"] for r in rows] == ["finished"] * 2 + ["failed"]
    assert float(rows[0]["validation_error"]) == found.best.error  # type: ignore[union-attr]
    assert rows[-1]["problem"] == "Training has diverged."

    fake.fail = lambda recipe: None  # what failed was fixed: the same call tries it again
    again = search(3)
    assert {t.state for t in again.trials} == {"finished"}
    assert failed.settings in [t.settings for t in again.trials]
    assert len(again.trials) == 3


def test_without_validation_images_nothing_is_tuned(fake: FakeRuns) -> None:
    with pytest.raises(UsageError, match="holds out no validation images, and the test error must"):
        tune("digits", ALPHA, "study")
    assert not Path("study").exists()


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["solver.alpha=0.5..1"], r"--search solver\.alpha, at 1.*less than 1"),
        (["solver.alpha=0.5..2.5", "graph.k=0..5"], r"(?s)alpha, at 2\.5.*graph\.k, at 0"),
        (["solver=cg,pwer"], "Did you mean 'power'"),
        (["solver.alhpa=0.5..0.9"], "alpha"),
    ],
)
def test_values_that_a_recipe_cannot_hold(texts: list[str], message: str, fake: FakeRuns) -> None:
    with pytest.raises(UsageError, match=message):
        search(2, texts)
    assert not Path("study").exists()


def test_a_folder_of_something_else_is_left_alone(fake: FakeRuns) -> None:
    search(1)
    with pytest.raises(RunFolderError, match="another recipe, other settings or another search"):
        search(2, ["solver.alpha=0.6..0.9"])
    with pytest.raises(RunFolderError, match="another recipe"):
        tune("digits", ALPHA, "study", trials=2, settings=["dataset.num_validation=60"])
    Path("study/study.db").write_text("no data base")
    with pytest.raises(RunFolderError, match="holds no study"):
        search(2)
    assert Path("study/study.db").read_text() == "no data base"
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="is there and holds no study"):
        prepare("digits", ALPHA, "mine", settings=HELD_OUT)


def test_the_command_prints_the_table_and_the_line_to_use(fake: FakeRuns) -> None:
    words = ["tune", "digits", "--search", ALPHA[0], "--trials=3", f"--set={HELD_OUT[0]}"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("trial  validation error, %"))
    best = lines[head + 1].split()
    assert float(best[1]) == min(float(line.split()[1]) for line in lines[head + 1 : head + 4])
    assert f"The best: --set solver.alpha={best[-1]}" in lines
    assert f"  dlp run digits --set {HELD_OUT[0]} --set solver.alpha={best[-1]} --seed 1" in lines
    assert "test_error" not in done.stdout
    Path("mine.py").touch()
    others = ["--trials=1", "--set", "seed=6", "--plugin=mine.py", "--device=cpu", "--out=other"]
    done = CliRunner().invoke(app, ["tune", "digits", "--search", ALPHA[0], words[-1], *others])
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("  dlp run "))
    assert line.startswith(f"  dlp run digits --set {HELD_OUT[0]} --set solver.alpha=0.")
    assert line.endswith(" --device cpu --plugin mine.py --seed 7")
    assert Path("runs/tune-digits/trials.csv").is_file()


def test_optuna_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(MissingDependency, match="needs optuna, which is not installed"):
        prepare("digits", ALPHA)


# -- with training ---------------------------------------------------------------------------------


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A recipe that takes a tenth of a second."""
    monkeypatch.chdir(tmp_path)
    load_plugin_file(ROOT / "dlp_plugins/scaffold/minimal.py")
    Path("small.toml").write_text(
        'dataset = {name = "outside", num_labeled = 4, num_validation = 20}\nbackbone = "outside"\n'
        'augmentation = "outside"\ngraph = {k = 5}\n[training]\nstage_one_epochs = 2\n'
        "stage_one_steps = 3\nstage_two_epochs = 4\nbatch_size = 20\nlabeled_per_batch = 4\n"
    )
    yield "small.toml"
    for kind in KINDS:
        kind.unregister("outside")


def test_runs_are_trained_and_stopped(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "COMPARED", 1)
    monkeypatch.setattr(tuning, "FIRST_EPOCHS", 0)
    found = tune(recipe, ["graph.k=1..12", "solver.alpha=0.1..0.99"], trials=4, device="cpu")
    assert len(found.trials) == 4
    assert 0 <= found.best.error <= 50  # type: ignore[union-attr, operator]
    assert {t.epochs for t in found.trials if t.state == "finished"} == {4}
    assert len(list(Path("runs/tune-small/trials").iterdir())) == 4


def test_a_run_that_a_listener_stops_can_be_resumed(recipe: str, tmp_path: Path) -> None:
    def stop(event: events.Event) -> None:
        if isinstance(event, events.EpochDone) and event.stage == "propagation":
            raise events.StopRun

    with pytest.raises(events.StopRun):
        real_run(recipe, tmp_path / "r", device="cpu", listeners=[stop])
    summary = real_run(recipe, tmp_path / "r", device="cpu", resume=True)
    whole = real_run(recipe, tmp_path / "w", device="cpu")
    assert summary["test_error"] == whole["test_error"]
    assert isinstance(whole, Summary)
