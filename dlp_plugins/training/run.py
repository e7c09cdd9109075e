"""One run from a recipe: folder, data, trainer, summary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState

from dlp_plugins.environment import (
    choose_device,
    describe_environment,
    device_name,
    peak_memory_mb,
)
from dlp_plugins.errors import UsageError
from dlp_plugins.recipe.model import PARTS, Recipe
from dlp_plugins.training import checkpoint, events
from dlp_plugins.training.data import RunData, prepare_data
from dlp_plugins.training.folder import FORMAT, RunFolder, write_json, write_text
from dlp_plugins.training.progress import PROPAGATION, STUDENT, SUPERVISED, TEACHER, metric
from dlp_plugins.training.tracking import tracking
from dlp_plugins.training.trainer import Trainer

PRECISION = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


def run(
    recipe: Recipe,
    folder: Path | str,
    *,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    stage_one: Path | None = None,
    listeners: Sequence[events.Listener] = (),
) -> dict[str, Any]:
    """Train by a recipe and return what goes to summary.json.

    Args:
        folder: where everything is written; must be new unless `resume` or `overwrite`.
        device: 'auto' (a GPU where there is one), 'cpu' or 'cuda'.
        resume: continue from the folder's checkpoint, to the same result as without the break.
        stage_one: a finished stage one of the same settings to start stage two from, instead of
            training it again (a run's `checkpoint/stage_one.safetensors`).
        listeners: called with every event.

    Raises:
        RunFolderError: the folder exists, or holds another recipe.
        DataError, LabelError: the data are missing or do not fit the request.
        SaveError: something could not be written; what was saved before is intact.
        KeyboardInterrupt: after saving.
    """
    target = RunFolder(Path(folder))
    inputs = _inputs(recipe, stage_one)
    if resume:
        target.check_same_recipe(recipe.as_dict())
        if target.summary.is_file():
            summary = target.read_summary()
            events.Listeners(listeners)(events.RunDone(target.path, summary))
            return summary
    else:
        target.check_free(overwrite, inputs)
    accelerator = build_accelerator(device, recipe.training.precision)
    # Before the folder is made: a bad request leaves nothing.
    data = prepare_data(recipe, accelerator.device)
    with target.resumed() if resume else target.new(overwrite, inputs):
        if not resume:
            _describe(target, recipe, data, accelerator)
        with tracking(recipe, target) as trackers:
            tell = events.Listeners([*trackers, *listeners])
            trainer = Trainer(recipe, data, accelerator, target, tell)
            return _train(trainer, resume, stage_one, tell)


def _inputs(recipe: Recipe, stage_one: Path | None) -> list[Path]:
    """Files and folders that a run by this recipe reads."""
    found = [stage_one] if stage_one is not None else []
    if recipe.dataset.labeled_indices is not None:
        found.append(Path(recipe.dataset.labeled_indices))
    for key in PARTS:
        params = getattr(recipe, key).params.values()
        found += [Path(v) for v in params if isinstance(v, str) and v and Path(v).exists()]
    return found


def _describe(target: RunFolder, recipe: Recipe, data: RunData, accelerator: Accelerator) -> None:
    """Write what is known before training; the recipe last, so that its presence means all."""
    write_json(target.environment, {"format": FORMAT, **describe_environment(accelerator.device)})
    write_json(target.labeled_indices, data.record)
    write_text(target.recipe, recipe.to_toml())


def _train(
    trainer: Trainer, resume: bool, stage_one: Path | None, tell: events.Listener
) -> dict[str, Any]:
    target = trainer.folder
    # A run killed before its first checkpoint starts from the beginning: nothing was saved to lose.
    resumed = resume and target.training.is_file()
    if resumed:
        trainer.load(*checkpoint.load(target.training))
    elif stage_one is not None:
        trainer.load(*checkpoint.load(stage_one))
    else:
        trainer.begin()
    tell(_started(trainer, resumed))
    trainer.run()
    student, teacher = trainer.learner.network, trainer.learner.teacher
    checkpoint.save(target.weights("student"), student.state_dict())
    if teacher is not None:
        checkpoint.save(target.weights("teacher"), teacher.state_dict())
    summary = summarize(trainer)
    write_json(target.summary, summary)
    tell(events.RunDone(target.path, summary))
    return summary


def build_accelerator(device: str, precision: str) -> Accelerator:
    """Device and precision, by Accelerate.

    Raises:
        UsageError: no such device here, or the precision does not fit it.
    """
    cpu = choose_device(device).type == "cpu"
    if cpu and precision == "float16":
        raise UsageError("training.precision: float16 needs a GPU; use bfloat16 or float32.")
    # Accelerate keeps one state per process; a second run may want another device or precision.
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    return Accelerator(cpu=cpu, mixed_precision=PRECISION[precision])


def summarize(trainer: Trainer) -> dict[str, Any]:
    """The run's result. Errors in percent, student and teacher, last and (by validation) best."""
    p = trainer.progress
    final = p.history[-1] if p.history else {}
    supervised = [line for line in p.history if line["stage"] == SUPERVISED]
    summary: dict[str, Any] = {}
    for network in (STUDENT, TEACHER):
        errors = [metric(network, name) for name in ("test_error", "test_error_top5")]
        summary.update({k: final[k] for k in errors if k in final})
        if supervised:
            summary.update({f"supervised_{k}": supervised[-1][k] for k in errors if k in final})
        best = p.best.get(network, {})
        summary.update({f"best_{metric(network, k)}": v for k, v in best.items()})
    if "pseudo_label_accuracy" in final:
        summary["pseudo_label_accuracy"] = final["pseudo_label_accuracy"]
    summary.update(
        seed=trainer.recipe.seed,
        num_labeled=len(trainer.data.labeled),
        epochs={
            SUPERVISED: trainer.recipe.training.stage_one_epochs,
            PROPAGATION: trainer.recipe.training.stage_two_epochs,
        },
        seconds=trainer.seconds(),
        images_per_second=p.images / p.train_seconds if p.train_seconds else 0.0,
        peak_memory_mb=peak_memory_mb(trainer.device),
    )
    return summary


def _started(trainer: Trainer, resumed: bool) -> events.RunStarted:
    data = trainer.data
    return events.RunStarted(
        folder=trainer.folder.path,
        description=trainer.recipe.description,
        device=device_name(trainer.device),
        num_train=len(data.truth),
        num_labeled=len(data.labeled),
        num_test=len(data.test_labels),
        num_classes=data.dataset.num_classes,
        stages=tuple((name, epochs) for name, epochs in trainer.stages if epochs),
        resumed=resumed,
        history=tuple(trainer.progress.history),
    )
