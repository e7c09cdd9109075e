"""The training engine: same seed same run, killed and resumed, nothing lost, clear refusals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dlp_plugins import errors
from dlp_plugins.consistency import Batch
from dlp_plugins.datasets.contract import LazyImages, TensorImages
from dlp_plugins.recipe.check import load_recipe
from dlp_plugins.schedules.cosine import Cosine
from dlp_plugins.training import batches, checkpoint, events, seeds
from dlp_plugins.training.data import prepare_data
from dlp_plugins.training.folder import RunFolder
from dlp_plugins.training.pseudo_labels import accuracy, mean_certainty
from dlp_plugins.training.run import build_accelerator, run
from dlp_plugins.training.trainer import Trainer

# Few images and a narrow network: a run of both stages takes about a second.
TINY = [
    "dataset.num_train=300", "dataset.num_test=100", "backbone.width=4",
    "training.stage_one_epochs=3", "training.stage_one_steps=4", "training.stage_two_epochs=3",
]  # fmt: skip
TIMES = {"seconds", "images_per_second", "propagation_seconds", "peak_memory_mb"}


def tiny(*overrides: str):
    return load_recipe("digits", [*TINY, *overrides])


def metrics(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def outcome(folder: Path) -> dict:
    summary = json.loads((folder / "summary.json").read_text())
    return {k: v for k, v in summary.items() if k not in TIMES}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(folder / "checkpoint" / "student.safetensors")[0]


def assert_same_run(one: Path, other: Path) -> None:
    assert metrics(one) == metrics(other)
    assert outcome(one) == outcome(other)
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "finished"
    run(tiny(), folder)
    return folder


def test_a_run_leaves_what_it_promises(finished):
    summary = json.loads((finished / "summary.json").read_text())
    assert {
        "test_error", "supervised_test_error", "pseudo_label_accuracy", "residual",
        "labels_may_change", "seconds", "images_per_second", "peak_memory_mb",
    } <= summary.keys()  # fmt: skip
    assert 0 <= summary["test_error"] <= 100
    indices = json.loads((finished / "labeled_indices.json").read_text())
    assert len(indices["labeled_indices"]) == 50
    arrays = np.load(finished / "pseudo_labels.npz")
    assert arrays["labels"].shape == arrays["weights"].shape == (300,)
    assert np.isfinite(arrays["weights"]).all()
    assert load_recipe(finished / "recipe.toml") == tiny()
    assert "torch" in json.loads((finished / "environment.json").read_text())["packages"]
    assert [line["stage"] for line in metrics(finished)] == ["supervised"] * 3 + ["propagation"] * 3
    environment = json.loads((finished / "environment.json").read_text())
    assert (environment["format"], environment["plugins"]) == (2, [])
    assert arrays["index"].tolist() == sorted(set(arrays["index"].tolist()))
    model = json.loads((finished / "model.json").read_text())
    assert model["classes"] == [str(i) for i in range(10)]
    assert (model["shape"], model["dtype"]) == ([1, 8, 8], "uint8")
    assert len(model["mean"]) == len(model["std"]) == 1
    assert model["network"]["backbone"]["name"] == "small_cnn"
    assert (finished / "checkpoint" / "student.safetensors").stat().st_mode & 0o777 == (
        (finished / "recipe.toml").stat().st_mode & 0o777
    )
    assert not (finished / ".lock").exists()
    health = {"residual", "iterations", "unreached", "unlabeled_components", "empty_classes"}
    assert health <= metrics(finished)[-1].keys()
    assert not list(finished.rglob("*.tmp"))


def test_the_same_seed_gives_the_same_run_bit_for_bit(finished, tmp_path):
    run(tiny(), tmp_path / "again")
    assert_same_run(finished, tmp_path / "again")


def test_another_seed_gives_another_run(finished, tmp_path):
    run(tiny("seed=1"), tmp_path / "other")
    assert metrics(finished) != metrics(tmp_path / "other")


class CrashError(BaseException):
    """Like a kill: what a listener raises stops a run only if it is no ordinary exception."""


def stop_at(kind: type, count: int):
    """A listener that fails at the count-th event of a kind, as a crash would."""
    seen = 0

    def listen(event: events.Event) -> None:
        nonlocal seen
        seen += isinstance(event, kind)
        if isinstance(event, kind) and seen == count:
            raise CrashError

    return listen


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A function that runs a recipe without a break, once for all tests."""
    known: dict[tuple[str, ...], Path] = {}

    def folder_of(*settings: str) -> Path:
        if settings not in known:
            known[settings] = tmp_path_factory.mktemp("whole") / "run"
            run(load_recipe("digits", settings), known[settings])
        return known[settings]

    return folder_of


@pytest.mark.parametrize("saves", [1, 2, 6, 9, 20])
@pytest.mark.parametrize("method", ["none", "mean_teacher"])
def test_crashed_after_any_checkpoint_and_resumed_is_as_uninterrupted(
    saves, method, whole, tmp_path
):
    # checkpoint_seconds = 0 saves after every step, so the breaks fall inside epochs of both stages
    recipe = tiny(f"consistency={method}", "training.checkpoint_seconds=0")
    with pytest.raises(CrashError):
        run(recipe, tmp_path / "broken", listeners=[stop_at(events.CheckpointSaved, saves)])
    assert not (tmp_path / "broken" / "summary.json").exists()
    run(recipe, tmp_path / "broken", resume=True)
    assert_same_run(whole(*TINY, f"consistency={method}"), tmp_path / "broken")


def test_warm_start_resumes_as_uninterrupted(tmp_path):
    settings = ["pseudo_labels.warm_start=true", "pseudo_labels.audit=true"]
    recipe = tiny(*settings, "training.checkpoint_seconds=0")
    run(recipe, tmp_path / "whole")
    audited = [m["label_errors"] for m in metrics(tmp_path / "whole") if "label_errors" in m]
    assert audited
    assert all(0 <= percent <= 100 for percent in audited)
    with pytest.raises(CrashError):
        run(recipe, tmp_path / "broken", listeners=[stop_at(events.CheckpointSaved, 22)])
    run(recipe, tmp_path / "broken", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "broken")


SCRIPT = """
import sys
from dlp_plugins.recipe.check import load_recipe
from dlp_plugins.training.folder import write_json
from dlp_plugins.training.run import run
recipe = load_recipe("digits", sys.argv[2:])
run(recipe, sys.argv[1], listeners=[lambda event: print(type(event).__name__, flush=True)])
"""
# the last one, how often to save, changes no result
LONGER = [*TINY, "training.stage_two_epochs=30", "training.checkpoint_seconds=0.01"]


def start(folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), *LONGER], stdout=subprocess.PIPE, text=True
    )


def wait_for(process: subprocess.Popen, event: str, count: int) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        count -= line.strip() == event
        if count == 0:
            return
    pytest.fail(f"the run ended before {event}")


@pytest.mark.commands
def test_an_interrupt_saves_and_the_resumed_run_is_as_uninterrupted(whole, tmp_path):
    recipe = load_recipe("digits", LONGER)
    process = start(tmp_path / "stopped")
    wait_for(process, "EpochDone", 5)
    process.send_signal(signal.SIGTERM)
    rest = process.communicate()[0]
    assert "RunInterrupted" in rest
    assert process.returncode != 0
    run(recipe, tmp_path / "stopped", resume=True)
    assert_same_run(whole(*LONGER[:-1]), tmp_path / "stopped")


def test_resuming_a_finished_run_changes_nothing(finished):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*")}
    assert run(tiny(), finished, resume=True)["test_error"] == outcome(finished)["test_error"]
    assert before == {p: p.stat().st_mtime_ns for p in finished.rglob("*")}


def test_a_damaged_summary_is_explained_and_the_checkpoint_restores_it(tmp_path):
    run(tiny(), tmp_path / "run")
    summary = tmp_path / "run" / "summary.json"
    expected = outcome(tmp_path / "run")
    summary.write_text("{half")
    with pytest.raises(errors.DataError, match=r"summary\.json cannot be read.*--resume"):
        run(tiny(), tmp_path / "run", resume=True)
    summary.unlink()
    run(tiny(), tmp_path / "run", resume=True)
    assert outcome(tmp_path / "run") == expected


def test_a_run_folder_is_not_overwritten_without_being_asked_to(finished):
    with pytest.raises(errors.RunFolderError, match=r"--resume.*--overwrite.*--out"):
        run(tiny(), finished)
    assert (finished / "summary.json").exists()


def test_overwrite_spares_a_folder_that_no_run_made(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(errors.RunFolderError, match="which no run made"):
        run(tiny(), tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_resume_refuses_another_recipe_and_names_the_difference(finished):
    with pytest.raises(errors.RunFolderError, match=r"solver.alpha \(0.99, now 0.5\)"):
        run(tiny("solver.alpha=0.5"), finished, resume=True)


def test_a_run_of_an_older_version_without_a_new_setting_is_resumed(tmp_path):
    recipe = tiny("training.checkpoint_seconds=0")
    with pytest.raises(CrashError):
        run(recipe, tmp_path / "run", listeners=[stop_at(events.CheckpointSaved, 5)])
    path = tmp_path / "run" / "recipe.toml"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith("evaluate_every")))
    assert "test_error" in run(recipe, tmp_path / "run", resume=True)


def test_resume_without_a_run_is_refused(tmp_path):
    with pytest.raises(errors.RunFolderError, match="no run to resume"):
        run(tiny(), tmp_path / "nothing", resume=True)


def test_a_full_disk_leaves_the_last_checkpoint_whole(finished, tmp_path, monkeypatch):
    recipe = tiny("training.checkpoint_seconds=0")
    real, saves = checkpoint.write_with, 0

    def full(path, write, previous):
        nonlocal saves
        saves += 1

        def fail(temporary):
            temporary.write_bytes(b"half of it")
            raise OSError(28, "No space left on device")

        real(path, fail if saves == 8 else write, previous)

    monkeypatch.setattr(checkpoint, "write_with", full)
    with pytest.raises(errors.SaveError, match=r"No space left on device.*--resume"):
        run(recipe, tmp_path / "run")
    assert not list((tmp_path / "run").rglob("*.tmp"))
    run(recipe, tmp_path / "run", resume=True)
    assert_same_run(finished, tmp_path / "run")


@pytest.mark.parametrize(
    ("overrides", "error", "text"),
    [
        (["dataset.num_labeled=5000"], errors.LabelError, "5000|5,000"),
        (["dataset.labeled_indices=none.json"], errors.DataError, "none.json"),
        (["dataset.name=cifar10", "dataset.root=nowhere"], errors.DataError, "nowhere"),
        (["training.precision=float16"], errors.UsageError, "float16"),
    ],
)
def test_bad_requests_are_refused_and_leave_nothing(overrides, error, text, tmp_path):
    recipe = load_recipe("digits", overrides)
    with pytest.raises(error, match=text):
        run(recipe, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_validation_without_num_labeled_leaves_all_other_known_labels_to_train(tmp_path):
    settings = {"dataset.num_labeled": "all", "dataset.num_validation": 100}
    stages = {"training.stage_one_epochs": 1, "training.stage_two_epochs": 0}
    summary = run(tiny(), tmp_path / "run", **settings, **stages)
    assert summary["num_labeled"] == 200
    assert "best_validation_error" in summary


def test_a_batch_without_room_for_the_unlabelled_that_stage_one_needs_is_refused(tmp_path):
    settings = {"training.stage_two_epochs": 0, "training.labeled_per_batch": 100}
    with pytest.raises(errors.UsageError, match=r"labeled_per_batch \(100\) must be less"):
        run(tiny("consistency=mean_teacher"), tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()
    run(tiny("training.stage_one_epochs=1"), tmp_path / "run", **settings)  # labels alone


@pytest.mark.parametrize("name", ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE"])
def test_processes_that_cannot_find_each_other_are_refused_in_one_sentence(name, monkeypatch):
    monkeypatch.setenv(name, "2")
    with pytest.raises(errors.UsageError, match=r"2 processes were started .* by torchrun or"):
        build_accelerator("cpu", "float32")


def test_a_launchers_variables_for_a_single_process_are_ignored(monkeypatch):
    for name, value in {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    assert build_accelerator("cpu", "float32").num_processes == 1
    assert os.environ["LOCAL_RANK"] == "0"


def trainer_of(folder: Path, listener, *overrides: str) -> Trainer:
    """A trainer at its beginning, whose network and steps a test can meddle with."""
    recipe, cpu = tiny(*overrides), build_accelerator("cpu", "float32")
    target = RunFolder(folder)
    target.checkpoint.mkdir()
    trainer = Trainer(recipe, prepare_data(recipe, cpu.device), cpu, target, listener)
    trainer.begin()
    return trainer


def labeled_batch(trainer: Trainer) -> Batch:
    """Eight labelled images, as stage one shows them."""
    d, at = trainer.data, trainer.data.labeled[:8]
    (images,) = d.train.batches([at])
    return Batch(images, at, d.known_labels[at], torch.ones(8), torch.ones(10), num_labeled=8)


def descriptors_and_logits(trainer: Trainer, images: torch.Tensor):
    learner = trainer.learner
    with torch.no_grad():
        found = learner.network.eval()(learner.plain(images))
    return found.descriptor, found.logits


def test_each_group_of_parameters_has_its_share_of_the_learning_rate(tmp_path):
    trainer = trainer_of(tmp_path, lambda event: None, "optimizer.backbone_rate=0.1")
    trainer.learner.step(labeled_batch(trainer), 0, 11.0, 20)  # half-way to schedule.zero_epoch
    rates = {g["rate"]: g["lr"] for g in trainer.learner.optimizer.param_groups}
    assert rates == pytest.approx({0.1: 0.005, 1.0: 0.05})


def test_a_long_gradient_is_shortened_to_clip_norm(tmp_path):
    settings = ["optimizer.momentum=0", "optimizer.weight_decay=0", "optimizer.clip_norm=0.01"]
    trainer = trainer_of(tmp_path, lambda event: None, *settings)
    parameters = list(trainer.learner.network.parameters())
    before = [p.detach().clone() for p in parameters]
    trainer.learner.step(labeled_batch(trainer), 0, 0.0, 20)
    change = [(p.detach() - b).norm() for p, b in zip(parameters, before, strict=True)]
    assert float(torch.stack(change).norm()) == pytest.approx(0.1 * 0.01, rel=1e-3)


def test_descriptors_are_the_mean_of_an_images_and_its_mirror_images(tmp_path):
    trainer = trainer_of(tmp_path, lambda event: None, "pseudo_labels.mirror_images=true")
    images = trainer.data.train.source.images
    plain, mirrored = (descriptors_and_logits(trainer, x)[0] for x in (images, images.flip(-1)))
    assert (plain - mirrored).abs().max() > 0.01
    found = trainer.labeler._describe(trainer.learner.network)
    torch.testing.assert_close(found, (plain + mirrored) / 2)


def test_the_labels_that_are_audited_are_the_given_ones(tmp_path):
    trainer = trainer_of(tmp_path, lambda event: None, "pseudo_labels.audit=true")
    audit = trainer.labeler.refresh(trainer.pseudo).audit
    known = trainer.data.known_labels.numpy()
    assert audit is not None
    assert audit.points.tolist() == np.flatnonzero(known >= 0).tolist()
    assert audit.labels.tolist() == known[known >= 0].tolist()
    assert len(audit.points) == 50


def test_a_diverged_run_names_the_first_loss_that_is_not_finite_and_what_to_try(tmp_path):
    trainer = trainer_of(tmp_path, lambda event: None)
    real, calls = trainer.learner.step, 0

    def seventh_is_nan(*arguments):
        nonlocal calls
        calls += 1
        losses = real(*arguments)
        return {**losses, "total": losses["total"] * (float("nan") if calls == 7 else 1)}

    trainer.learner.step = seventh_is_nan
    with pytest.raises(
        errors.DivergenceError,
        match=r"the loss is nan in epoch 2 of stage 'supervised', step 3\. Try a smaller "
        r"optimizer.learning_rate \(now 0.1\), or optimizer.clip_norm = 1",
    ):
        trainer.run()


def test_a_diverged_run_leaves_no_result_and_no_nan(tmp_path):
    with pytest.raises(errors.DivergenceError, match=r"now 1000000.0\)"):
        run(tiny(), tmp_path / "run", **{"optimizer.learning_rate": 1e6})
    assert not (tmp_path / "run" / "summary.json").exists()
    assert "nan" not in (tmp_path / "run" / "metrics.jsonl").read_text().lower()


def test_the_last_good_checkpoint_of_a_diverged_run_stays(tmp_path):
    def poison(event):
        if isinstance(event, events.CheckpointSaved) and not poisoned:
            poisoned.append(checkpoint.load(event.path)[1]["step"])
            with torch.no_grad():
                trainer.learner.network.head.weight.fill_(float("inf"))

    poisoned: list[int] = []
    trainer = trainer_of(tmp_path, poison, "training.checkpoint_seconds=0")
    with pytest.raises(
        errors.DivergenceError, match=r"step 2\..*training.safetensors is from before"
    ):
        trainer.run()
    assert poisoned == [1]
    tensors, numbers = checkpoint.load(trainer.folder.training)
    assert numbers["step"] == 1
    assert all(t.isfinite().all() for k, t in tensors.items() if k.startswith("student"))


def test_stopped_in_the_last_epoch_of_stage_one_its_end_is_saved(finished, tmp_path):
    def interrupt(event):
        if isinstance(event, events.EpochDone) and event.epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tiny(), tmp_path / "run", listeners=[interrupt])
    assert (tmp_path / "run" / "checkpoint" / "stage_one.safetensors").is_file()
    run(tiny(), tmp_path / "run", resume=True)
    assert_same_run(finished, tmp_path / "run")


def test_a_run_folder_removed_in_mid_run_ends_the_run(tmp_path):
    def remove(event):
        if isinstance(event, events.EpochStarted) and event.epoch == 1:
            shutil.rmtree(tmp_path / "run")

    with (
        pytest.warns(UserWarning, match="tracker jsonl stopped"),
        pytest.raises(errors.SaveError, match=r"there is no folder .*moved or removed"),
    ):
        run(tiny(), tmp_path / "run", listeners=[remove])
    assert not (tmp_path / "run").exists()


def test_a_listener_that_fails_does_not_stop_a_run(finished, tmp_path):
    def broken(event):
        raise BrokenPipeError(32, "Broken pipe")

    with pytest.warns(UserWarning, match="Broken pipe"):
        run(tiny(), tmp_path / "run", listeners=[broken])
    assert_same_run(finished, tmp_path / "run")


def test_nothing_unlabelled_is_refused_with_the_way_out(tmp_path):
    recipe = load_recipe("digits").model_copy()
    everything = recipe.dataset.model_copy(update={"num_labeled": "all"})
    recipe = recipe.model_copy(update={"dataset": everything})
    with pytest.raises(errors.DataError, match="stage_two_epochs = 0"):
        run(recipe, tmp_path / "run")


@pytest.fixture(scope="module")
def validated(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "validated"
    run(tiny("dataset.num_validation=60"), folder)
    return folder


def test_validation_chooses_the_best_of_each_stage_and_both_are_reported(validated):
    summary, lines = outcome(validated), metrics(validated)
    for stage, prefix in (("supervised", "supervised_best"), ("propagation", "best")):
        of_stage = [line for line in lines if line["stage"] == stage]
        best = min(of_stage, key=lambda line: line["validation_error"])  # the first of equals
        assert summary[f"{prefix}_validation_error"] == best["validation_error"]
        assert summary[f"{prefix}_test_error"] == best["test_error"]
    assert summary["test_error"] == lines[-1]["test_error"]
    record = json.loads((validated / "labeled_indices.json").read_text())
    assert len(record["validation_indices"]) == 60
    assert not set(record["validation_indices"]) & set(record["labeled_indices"])
    assert record["num_train"] == 240


def test_the_best_weights_are_there_when_a_better_stage_one_is_shared(validated, tmp_path):
    tensors, numbers = checkpoint.load(validated / "checkpoint" / "stage_one.safetensors")
    numbers["best"]["supervised"]["student"]["validation_error"] = -1.0  # none can be lower
    checkpoint.save(tmp_path / "stage_one.safetensors", tensors, numbers)
    run(
        tiny("dataset.num_validation=60"),
        tmp_path / "shared",
        stage_one=tmp_path / "stage_one.safetensors",
    )
    assert metrics(validated) == metrics(tmp_path / "shared")
    name = "checkpoint/best_student_weights.safetensors"
    ours, theirs = (checkpoint.load(f / name)[0] for f in (tmp_path / "shared", validated))
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_student_and_teacher_are_both_reported(tmp_path):
    summary = run(tiny("consistency=mean_teacher"), tmp_path / "run")
    assert {"test_error", "teacher_test_error"} <= summary.keys()
    assert {"supervised_test_error", "supervised_teacher_test_error"} <= summary.keys()
    teacher = checkpoint.load(tmp_path / "run" / "checkpoint" / "teacher.safetensors")[0]
    student = weights(tmp_path / "run")
    assert any(not torch.equal(teacher[k], student[k]) for k in student)


def test_stage_one_can_be_shared_and_gives_the_same_run(finished, tmp_path):
    run(tiny(), tmp_path / "shared", stage_one=finished / "checkpoint" / "stage_one.safetensors")
    assert_same_run(finished, tmp_path / "shared")


def test_bfloat16_and_channels_last_train_too(tmp_path):
    run(tiny("training.precision=bfloat16", "training.channels_last=true"), tmp_path / "run")
    lines = metrics(tmp_path / "run")
    assert all(np.isfinite(line["loss_total"]) for line in lines)
    assert lines[-1]["loss_total"] < lines[0]["loss_total"]


@pytest.mark.slow
@pytest.mark.parametrize("chosen", ["true", "reduce-overhead"])
def test_a_compiled_network_gives_what_the_plain_one_gives(chosen, tmp_path):
    settings = ("training.precision=float32", "consistency=mean_teacher")
    plain = run(tiny(*settings), tmp_path / "plain")
    compiled = run(tiny(*settings, f"training.compile={chosen}"), tmp_path / "compiled")
    for error in ("test_error", "teacher_test_error"):
        assert compiled[error] == pytest.approx(plain[error], abs=3)
    ours, theirs = metrics(tmp_path / "compiled")[0], metrics(tmp_path / "plain")[0]
    assert ours["loss_total"] == pytest.approx(theirs["loss_total"], rel=1e-3)


def test_soft_labels_train_and_resume_as_uninterrupted(finished, tmp_path):
    recipe = tiny("training.soft_labels=true", "training.checkpoint_seconds=0")
    run(recipe, tmp_path / "whole")
    last, hard = metrics(tmp_path / "whole")[-1], metrics(finished)[-1]
    assert np.isfinite(last["loss_total"])
    assert last["loss_total"] != hard["loss_total"]
    with pytest.raises(CrashError):
        run(recipe, tmp_path / "broken", listeners=[stop_at(events.CheckpointSaved, 22)])
    run(recipe, tmp_path / "broken", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "broken")


def test_an_epoch_of_stage_two_has_as_many_steps_as_asked_for(tmp_path):
    run(tiny("training.stage_two_steps=2", "training.stage_two_epochs=2"), tmp_path / "run")
    assert [line["steps"] for line in metrics(tmp_path / "run")] == [4, 4, 4, 2, 2]


def test_labels_of_the_network_itself_are_the_baseline(tmp_path):
    trainer = trainer_of(tmp_path, lambda event: None, "source=network")
    trainer.run()
    last = trainer.progress.history[-1]
    assert last["iterations"] == 0
    assert "residual" not in last
    found = trainer.labeler.refresh(trainer.pseudo)
    d, at = trainer.data, trainer.data.unlabeled
    predicted = descriptors_and_logits(trainer, d.train.source.images)[1].argmax(dim=1)
    assert len(predicted.unique()) > 2
    assert torch.equal(found.pseudo.labels[at], predicted[at])
    right = (predicted[at] == d.truth[at]).double().mean()
    assert found.accuracy == pytest.approx(100 * float(right))


def test_label_propagation_cuts_the_error_on_digits(tmp_path):
    summary = run(load_recipe("digits", ["training.stage_two_epochs=8"]), tmp_path / "run")
    assert summary["test_error"] < 0.7 * summary["supervised_test_error"]


@pytest.mark.slow
def test_over_five_seeds_the_error_on_digits_is_at_most_055_of_the_supervised_one(tmp_path):
    runs = [run(load_recipe("digits", [f"seed={s}"]), tmp_path / str(s)) for s in range(5)]
    ours = np.mean([r["test_error"] for r in runs])
    supervised = np.mean([r["supervised_test_error"] for r in runs])
    print(f"supervised {supervised:.2f}, with label propagation {ours:.2f}")
    assert ours <= 0.55 * supervised


# -- the parts ------------------------------------------------------------------------------------


def test_accuracy_and_certainty_are_of_the_unlabelled():
    pseudo: Any = SimpleNamespace(
        labels=torch.tensor([0, 1, 1, 0, -1, 1]),
        certainty=torch.tensor([1.0, 1.0, 0.5, 0.25, 0.0, 0.75]),
    )
    truth, unlabeled = torch.tensor([0, 1, 1, 1, 0, -1]), torch.tensor([2, 3, 4, 5])
    assert accuracy(pseudo, truth, unlabeled) == pytest.approx(100 / 3)  # of the three with a truth
    assert mean_certainty(pseudo, unlabeled) == 0.375
    assert accuracy(pseudo, torch.tensor([0, 1, -1, -1, -1, -1]), unlabeled) is None


def test_a_two_stream_epoch_is_one_pass_over_the_unlabelled():
    labeled, unlabeled = torch.arange(7), torch.arange(7, 107)
    plan = batches.two_streams(labeled, unlabeled, 30, 10, None, seeds.generator(0))
    assert [len(b) for b in plan] == [30] * 5
    assert all((b[:10] < 7).all() and (b[10:] >= 7).all() for b in plan)
    assert torch.cat([b[10:] for b in plan]).sort().values.equal(unlabeled)
    counts = torch.bincount(torch.cat([b[:10] for b in plan]))
    assert counts.max() - counts.min() <= 1  # the labelled are repeated evenly


def test_an_epoch_of_stage_one_is_one_pass_over_the_labelled():
    plan = batches.labeled_only(torch.arange(250), 100, None, seeds.generator(0))
    assert [len(b) for b in plan] == [100, 100]
    few = batches.labeled_only(torch.arange(7), 100, None, seeds.generator(0))
    assert [sorted(b.tolist()) for b in few] == [list(range(7))]


def test_cosine_reaches_zero_at_its_horizon():
    for cosine in (Cosine(), Cosine(zero_epoch=210)):
        assert cosine(0, 180) == 1
        assert cosine(105, 180) == pytest.approx(0.5)
        assert cosine(210, 180) == pytest.approx(0)
        assert cosine(180, 180) == pytest.approx(0.5 * (1 + np.cos(np.pi * 180 / 210)))


def _read(position: int) -> torch.Tensor:
    return torch.full((1, 2, 2), position, dtype=torch.uint8)


def test_lazy_images_give_the_batches_that_resident_ones_give():
    lazy = LazyImages(_read, torch.zeros(20, dtype=torch.long), (1, 2, 2))
    plan = [torch.tensor([3, 17, 4]), torch.tensor([19, 0])]
    cpu = torch.device("cpu")
    from_disk = list(batches.ImageStore(lazy, cpu, workers=2).batches(plan))
    resident = TensorImages(lazy.load().images, lazy.labels)
    from_memory = list(batches.ImageStore(resident, cpu, workers=0).batches(plan))
    assert all(a.equal(b) for a, b in zip(from_disk, from_memory, strict=True))
    assert from_disk[0][:, 0, 0, 0].tolist() == [3, 17, 4]


def test_class_shares_of_another_number_of_classes_are_found_before_training(tmp_path):
    with pytest.raises(errors.ParameterError, match="3 numbers for 10 classes"):
        run("digits", tmp_path / "r", **{"pseudo_labels.class_shares": [1, 2, 3]})
    assert not list((tmp_path / "r").glob("checkpoint/*"))
