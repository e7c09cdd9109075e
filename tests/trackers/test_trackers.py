"""Trackers: what they take down, also over a resume, and that a failing one never stops a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dlp_plugins.recipe.check import load_recipe
from dlp_plugins.registry import trackers
from dlp_plugins.trackers.contract import Tracker
from dlp_plugins.training import events
from dlp_plugins.training.run import run

TINY = [
    "dataset.num_train=300", "dataset.num_test=100", "backbone.width=4",
    "training.stage_one_epochs=2", "training.stage_one_steps=4", "training.stage_two_epochs=2",
]  # fmt: skip
SETTINGS = {"solver.alpha": 0.99, "solver.name": "cg", "dataset.mean": [0.5]}
HISTORY = [{"stage": "supervised", "epoch": 0, "test_error": 40.0}]
NEXT = {"stage": "propagation", "epoch": 0, "test_error": 20.0, "converged": True, "note": "x"}


def test_jsonl_holds_every_epoch_once_also_over_a_resume(tmp_path):
    for _ in range(2):  # the second time a line of an epoch that was not saved is there already
        tracker = trackers.build("jsonl", folder=tmp_path)
        tracker.begin("run", SETTINGS, HISTORY)
        tracker.log(NEXT, 1)
        tracker.finish(None)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [*HISTORY, NEXT]


def test_jsonl_never_writes_what_is_not_json(tmp_path):
    tracker = trackers.build("jsonl", folder=tmp_path)
    tracker.begin("run", SETTINGS, [])
    tracker.log({"test_error": float("nan")}, 0)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"test_error": null}\n'


def test_tensorboard(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run(load_recipe("digits", [*TINY, "tracker=tensorboard"]), tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    found = accumulator.EventAccumulator(str(tmp_path / "run" / "trackers" / "tensorboard"))
    found.Reload()
    assert [e.step for e in found.Scalars("test_error")] == [0, 1, 2, 3]
    assert [e.step for e in found.Scalars("pseudo_label_accuracy")] == [2, 3]


def test_mlflow_goes_on_in_the_same_run_after_a_resume(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "store").as_uri()
    for history, step, metrics in ([], 0, HISTORY[0]), (HISTORY, 1, NEXT):
        tracker = trackers.build("mlflow", folder=tmp_path, tracking_uri=uri)
        tracker.begin("run", SETTINGS, history)
        tracker.log(metrics, step)
        tracker.finish(None)
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("dlp-plugins")
    (only,) = client.search_runs([experiment.experiment_id])
    assert only.data.params["solver.alpha"] == "0.99"
    values = client.get_metric_history(only.info.run_id, "test_error")
    assert [(m.step, m.value) for m in values] == [(0, 40.0), (1, 20.0)]


@pytest.fixture
def broken():
    @trackers.register("broken")
    class Broken(Tracker):
        """Fails at the first epoch."""

        def log(self, metrics: dict[str, Any], step: int) -> None:
            raise OSError("the disk is full")

    yield
    trackers.unregister("broken")


def test_a_failing_tracker_never_stops_a_run_and_the_others_go_on(broken, tmp_path):
    recipe = load_recipe("digits", [*TINY, 'tracker=["broken", "jsonl"]'])
    with pytest.warns(UserWarning, match="tracker broken stopped: OSError: the disk is full"):
        summary = run(recipe, tmp_path / "run")
    assert summary["test_error"] < 100
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 4


def test_trackers_may_differ_in_a_resumed_run(tmp_path):
    def stop(event: events.Event) -> None:
        if isinstance(event, events.CheckpointSaved):
            raise KeyboardInterrupt

    settings = [*TINY, "training.checkpoint_seconds=0"]
    with pytest.raises(KeyboardInterrupt):
        run(load_recipe("digits", settings), tmp_path / "run", listeners=[stop])
    run(load_recipe("digits", [*settings, "tracker=[]"]), tmp_path / "run", resume=True)
    assert Path(tmp_path / "run" / "summary.json").is_file()
