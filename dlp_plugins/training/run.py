"""One run from a recipe: folder, data, trainer, summary."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import DistributedType

from dlp_plugins._files.scratch import nearest_folder
from dlp_plugins.environment import (
    choose_device,
    describe_environment,
    device_name,
    peak_memory_mb,
)
from dlp_plugins.errors import UsageError
from dlp_plugins.notebook.progress import in_notebook
from dlp_plugins.processes.group import Processes, join
from dlp_plugins.processes.launch import SIZES
from dlp_plugins.propagation.health import Convergence
from dlp_plugins.recipe.model import Recipe
from dlp_plugins.training import checkpoint, events, precision
from dlp_plugins.training.backend import backend
from dlp_plugins.training.bar import EpochBar
from dlp_plugins.training.card import write_card
from dlp_plugins.training.data import prepare_data
from dlp_plugins.training.folder import FORMAT, write_json, write_text
from dlp_plugins.training.progress import PROPAGATION, STUDENT, SUPERVISED, TEACHER, metric
from dlp_plugins.training.request import Request, prepare
from dlp_plugins.training.resume import check_same_data, last_saved
from dlp_plugins.training.summary import Summary
from dlp_plugins.training.tracking import tracking
from dlp_plugins.training.trainer import Trainer

# Where launchers say how many processes there are, and which one this is.
RANKS = (*SIZES, "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
PRECISION = {"float32": "no", "tf32": "no", "bfloat16": "bf16", "float16": "fp16"}


def run(
    recipe: str | Path | Recipe,
    out: str | Path | None = None,
    *,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    plugins: Sequence[str | Path] = (),
    stage_one: Path | None = None,
    listeners: Sequence[events.Listener] = (),
    **settings: Any,
) -> Summary:
    """Train by a recipe and return what goes to summary.json.

    >>> run("digits", out="runs/a", seed=3, solver="power", **{"solver.alpha": 0.9})
    ... # doctest: +SKIP

    Args:
        recipe: a recipe's path or name, or what `load_recipe` gave.
        out: the run folder; must be new unless `resume` or `overwrite`. By default runs/NAME-seedN.
        device: 'auto' (a GPU where there is one), 'cpu' or 'cuda'.
        resume: continue from the folder's checkpoint, to the same result as without the break.
        overwrite: replace the run in that folder.
        plugins: Python files that register components.
        stage_one: a finished stage one of the same settings to start stage two from, instead of
            training it again (a run's `checkpoint/stage_one.safetensors`).
        listeners: called with every event; one that fails is dropped and the run goes on. In a
            notebook, where none is given, a bar shows the epochs.
        settings: the recipe's keys with other values; a dotted key is written in a mapping.

    Raises:
        RecipeError: the recipe or a setting is wrong.
        RunFolderError: the folder exists, holds another recipe, other data, or another process.
        DataError, LabelError: the data are missing or do not fit the request.
        DivergenceError: the loss is no longer finite; the last good checkpoint stays.
        SaveError: something could not be written; what was saved before is intact.
        KeyboardInterrupt: after saving.
    """
    request = prepare(
        recipe, out, settings=settings, plugins=plugins, resume=resume, overwrite=overwrite
    )
    if not listeners and in_notebook():
        listeners = [EpochBar()]
    return train(request, device=device, stage_one=stage_one, listeners=listeners)


def train(
    request: Request,
    *,
    device: str = "auto",
    stage_one: Path | None = None,
    listeners: Sequence[events.Listener] = (),
) -> Summary:
    """Carry out what was prepared; arguments, result and errors as of `run`.

    Started by torchrun or accelerate launch, all processes train one network; the first alone has
    the folder and the listeners.
    """
    processes = join(choose_device(device).type)
    with processes.together():
        return _train_together(request, device, stage_one, listeners, processes)


def _train_together(
    request: Request,
    device: str,
    stage_one: Path | None,
    listeners: Sequence[events.Listener],
    processes: Processes,
) -> Summary:
    folder, first = request.folder, processes.first
    tell = events.Listeners(listeners if first else ())
    if not processes.alone and request.recipe.dataset.params.get("unreadable") == "skip":
        raise UsageError(
            "dataset.unreadable = skip: an image that one process cannot read is unknown to the "
            "others. Start one process, or find bad images first: dlp check RECIPE --data."
        )
    if request.resume:
        summary = processes.once(lambda: folder.read_summary() if folder.summary.is_file() else {})
        if summary:
            tell(events.RunDone(folder.path, summary))
            return Summary(summary)
    inputs = [*request.inputs, *([stage_one] if stage_one is not None else [])]
    # All of this before the folder is made: a bad request leaves nothing.
    if first and not request.resume:
        folder.check_free(request.overwrite, inputs)
    recipe = processes.once(lambda: _resolved(request, choose_device(device)))
    accelerator = build_accelerator(device, recipe.training.precision)
    with backend(accelerator.device, recipe.training):
        # several processes would each write a file of their own
        scratch = nearest_folder(folder.path) if processes.alone else None
        data = prepare_data(
            recipe, accelerator.device, processes, scratch, lambda text: tell(events.Note(text))
        )
        trainer = Trainer(recipe, data, accelerator, folder, tell, processes)
        if not first:
            return _train(trainer, request.resume, stage_one)
        with folder.resumed() if request.resume else folder.new(request.overwrite, inputs):
            if request.resume:
                check_same_data(folder, data.record)
            else:
                _describe(trainer, request)
            with tracking(request.recipe, folder) as trackers:
                tell.add(trackers)
                return _train(trainer, request.resume, stage_one)


def _resolved(request: Request, device: torch.device) -> Recipe:
    """The recipe with what the device decides; a resumed one computes as it began."""
    recipe, folder = request.recipe, request.folder
    if request.resume:
        return precision.resumed(recipe, folder.read_computation(), device, folder.path)
    return precision.resolve(recipe, device)


def _describe(trainer: Trainer, request: Request) -> None:
    """Write what is known before training; the recipe last, so that its presence means all."""
    folder = trainer.folder
    environment = {
        "format": FORMAT,
        **describe_environment(trainer.device),
        "computation": precision.as_record(trainer.recipe),
        "plugins": [plugin.as_dict() for plugin in request.plugins],
    }
    write_json(folder.environment, environment)
    write_json(folder.model, describe_model(trainer))
    write_json(folder.labeled_indices, trainer.data.record)
    write_text(folder.recipe, request.recipe.to_toml())  # as asked: 'auto' stays 'auto'


def describe_model(trainer: Trainer) -> dict[str, Any]:
    """What must be known, besides recipe and weights, to predict with the network.

    classes: names. mean, std: of each channel. shape, dtype: of an image as the data set gives it.
    network: what `Network` is built with.
    """
    dataset, recipe = trainer.data.dataset, trainer.recipe
    images = trainer.data.train.source
    return {
        "classes": list(dataset.classes),
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "shape": list(images.shape),
        "dtype": str(images.dtype).removeprefix("torch."),
        "network": {
            "backbone": recipe.as_dict()["backbone"],
            "heads": trainer.learner.consistency.heads,
        },
    }


def _train(trainer: Trainer, resume: bool, stage_one: Path | None) -> Summary:
    folder, tell, processes = trainer.folder, trainer.tell, trainer.processes
    saved = processes.once(lambda: last_saved(folder) if resume else None)
    if saved is not None:
        trainer.load(saved.tensors, saved.numbers)
    elif stage_one is not None:
        trainer.load(*processes.once(lambda: checkpoint.load(stage_one)))
    else:
        trainer.begin()
    tell(_started(trainer, saved is not None))
    if saved is not None and saved.note:
        tell(events.Note(saved.note))
    elif resume and saved is None:
        tell(events.Note(f"{folder.path} holds no checkpoint; the run starts from the beginning."))
    trainer.run()
    return Summary(processes.once(lambda: _finish(trainer)))


def _finish(trainer: Trainer) -> dict[str, Any]:
    """Write the networks and the summary."""
    folder, tell = trainer.folder, trainer.tell
    student, teacher = trainer.learner.network, trainer.learner.teacher
    checkpoint.save(folder.weights("student"), student.state_dict())
    if teacher is not None:
        checkpoint.save(folder.weights("teacher"), teacher.state_dict())
    summary = summarize(trainer)
    counts = {
        "train": len(trainer.data.truth),
        "labeled": len(trainer.data.labeled),
        "test": len(trainer.data.test_labels),
    }
    write_card(folder, folder.read_recipe(), describe_model(trainer), summary, counts)
    write_json(folder.summary, summary)
    tell(events.RunDone(folder.path, summary))
    return summary


def build_accelerator(device: str, numbers: str) -> Accelerator:
    """Device and precision, by Accelerate.

    Args:
        numbers: the network's precision, one of PRECISION.

    Raises:
        UsageError: no such device here, or several processes that cannot work together.
    """
    processes = join(choose_device(device).type)
    cpu = choose_device(device).type == "cpu"
    # Accelerate keeps one state per process; a second run may want another device or precision.
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    # The variables of a launcher make Accelerate wait for other processes.
    with _without(RANKS if processes.alone else ()):
        accelerator = Accelerator(cpu=cpu, mixed_precision=PRECISION[numbers])
    kind = accelerator.distributed_type
    if kind not in (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU):
        raise UsageError(f"accelerate launch was set to {kind.value}; training is data-parallel.")
    return accelerator


@contextlib.contextmanager
def _without(names: Sequence[str]) -> Iterator[None]:
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def summarize(trainer: Trainer) -> Summary:
    """The run's result. Errors in percent, student and teacher, last and (by validation) best.

    `best_...` is of the last stage, `supervised_best_...` of the one before it. `residual` and
    `labels_may_change` are of the last propagation.
    """
    p = trainer.progress
    final = p.history[-1] if p.history else {}
    supervised = [line for line in p.history if line["stage"] == SUPERVISED]
    summary = Summary()
    for network in (STUDENT, TEACHER):
        errors = [metric(network, name) for name in ("test_error", "test_error_top5")]
        summary.update({k: final[k] for k in errors if k in final})
        if supervised:
            summary.update({f"supervised_{k}": supervised[-1][k] for k in errors if k in final})
        for stage, best in p.best.items():
            prefix = "best" if stage == final["stage"] else f"{stage}_best"
            figures = best.get(network, {}).items()
            summary.update({f"{prefix}_{metric(network, k)}": v for k, v in figures})
    if "pseudo_label_accuracy" in final:
        summary["pseudo_label_accuracy"] = final["pseudo_label_accuracy"]
    if "residual" in final:
        solved = Convergence(*(final[k] for k in ("residual", "iterations", "converged")))
        summary.update(residual=solved.residual, labels_may_change=solved.labels_may_change)
    if unreadable := trainer.data.num_unreadable:
        summary["unreadable_images"] = unreadable
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
        device=f"{device_name(trainer.device)}, {trainer.recipe.training.precision}",
        num_train=len(data.truth),
        num_labeled=len(data.labeled),
        num_test=len(data.test_labels),
        num_classes=data.dataset.num_classes,
        stages=tuple((name, epochs) for name, epochs in trainer.stages if epochs),
        resumed=resumed,
        history=tuple(trainer.progress.history),
    )
