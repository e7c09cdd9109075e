"""The two stages, epoch by epoch. Everything that a resume needs lies in `Trainer.state`."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from dlp_plugins.consistency.contract import Batch, Counts
from dlp_plugins.errors import DivergenceError, UsageError
from dlp_plugins.processes.group import ALONE, Processes
from dlp_plugins.recipe.model import Recipe
from dlp_plugins.training import batches, checkpoint, evaluate, events, seeds
from dlp_plugins.training.agreement import Agreement
from dlp_plugins.training.data import RunData
from dlp_plugins.training.epoch_losses import EpochLosses
from dlp_plugins.training.folder import RunFolder, write_with
from dlp_plugins.training.interrupts import Interrupts
from dlp_plugins.training.label_table import write_pseudo_label_table
from dlp_plugins.training.labeler import Labeler
from dlp_plugins.training.learner import Learner
from dlp_plugins.training.progress import (
    PROPAGATION,
    STUDENT,
    SUPERVISED,
    TEACHER,
    Progress,
    metric,
)
from dlp_plugins.training.pseudo_labels import PseudoLabelState
from dlp_plugins.units import counted

# Seconds between two StepDone events: reading a loss from a GPU waits for it.
REPORT_SECONDS = 0.25


class Trainer:
    """Trains one network through both stages.

    Args:
        recipe: what to train and how.
        data: images and labels, on the accelerator's device.
        accelerator: device, mixed precision and the backward pass.
        folder: where checkpoints go.
        tell: called with every event.
        processes: those that train together; the first alone writes to the folder.

    Raises:
        UsageError: the source of pseudo-labels needs a teacher that the method does not keep, or
            stage one needs unlabelled examples and a batch has no room for them.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: RunData,
        accelerator: Accelerator,
        folder: RunFolder,
        tell: events.Listener,
        processes: Processes = ALONE,
    ) -> None:
        self.recipe, self.data, self.folder, self.tell = recipe, data, folder, tell
        self.accelerator, self.device = accelerator, accelerator.device
        self.processes = processes
        t = recipe.training
        self.stages = [(SUPERVISED, t.stage_one_epochs), (PROPAGATION, t.stage_two_epochs)]
        self.learner = Learner(recipe, data, accelerator, processes)
        self.labeler = Labeler(recipe, data, self.learner, processes)
        self.pseudo = PseudoLabelState.given(data)
        self._left_out = 0  # images that `pseudo` has no label of, as they could not be read
        self.progress = Progress()
        self.losses = EpochLosses()
        self._interrupts = Interrupts()
        self._agreement = Agreement(processes)
        self._check_batches()
        self._started = self._saved = time.monotonic()

    # -- the run ---------------------------------------------------------------------------------

    def begin(self) -> None:
        """Set up the first stage of a fresh run.

        Raises:
            UsageError: as the class.
        """
        self.learner.begin_stage(self._total_steps())
        self.labeler.check_teacher()

    def run(self) -> None:
        """From where `progress` stands to the end; an interrupt saves first."""
        with Interrupts(not self.processes.alone) as self._interrupts:
            for index in range(self.progress.stage, len(self.stages)):
                self._run_stage(index)

    def _check_batches(self) -> None:
        t = self.recipe.training
        mixed = t.stage_one_epochs and self.learner.consistency.needs_unlabeled
        if mixed and len(self.data.unlabeled) and t.labeled_per_batch >= t.batch_size:
            raise UsageError(
                f"training.labeled_per_batch ({t.labeled_per_batch}) must be less than "
                f"training.batch_size ({t.batch_size}): consistency "
                f"{self.recipe.consistency.name} needs unlabelled examples in every batch."
            )
        for stage, epochs in self.stages:
            if epochs and (rows := self._batch_rows(stage)) < self.processes.size:
                raise UsageError(
                    f"A batch of stage '{stage}' has {counted(rows, 'image')}, too few for "
                    f"{self.processes.size} processes. Start fewer, or set training.batch_size."
                )

    def _batch_rows(self, stage: str) -> int:
        t, d = self.recipe.training, self.data
        if self._labels_alone(stage):
            return min(t.batch_size, len(d.labeled))
        return t.labeled_per_batch + min(t.batch_size - t.labeled_per_batch, len(d.unlabeled))

    def _run_stage(self, index: int) -> None:
        name, epochs = self.stages[index]
        p = self.progress
        if p.stage != index:
            p.stage, p.epoch, p.step, p.health = index, 0, 0, {}
            self.learner.begin_stage(self._total_steps())
        if p.epoch >= epochs:
            return
        self.tell(events.StageStarted(name, epochs, p.epoch))
        while p.epoch < epochs:
            self._run_epoch(name)

    def _run_epoch(self, stage: str) -> None:
        p, every = self.progress, self.recipe.pseudo_labels.refresh_epochs
        if stage == PROPAGATION and p.step == 0 and p.epoch % every == 0:
            self._refresh()
        plan = self._plan(stage)
        steps = len(plan)
        self.tell(events.EpochStarted(stage, p.epoch, steps, p.step))
        if p.step == 0:
            self.learner.consistency.begin_epoch(self.learner.network, p.epoch)
        first, started, reported = p.step, time.monotonic(), 0.0
        left = [batches.share(p, self._own(stage, len(p)), self.processes)[0] for p in plan[first:]]
        # To the device once for the whole epoch: a copy in every step would wait for the device.
        on_device = [positions.to(self.device, non_blocking=True) for positions in left]
        read = self.data.train.batches(left)
        for whole, positions, images in zip(plan[first:], on_device, read, strict=True):
            self._step(positions, images, steps, len(whole))
            p.step += 1
            p.images += len(whole)
            now = time.monotonic()
            if now - reported > REPORT_SECONDS:
                reported = now
                self._check_losses()
                speed = (p.step - first) * len(whole) / (now - started)
                rate = self.learner.learning_rate
                self.tell(events.StepDone(p.step, self.losses.means(), rate, speed))
            if p.step < steps:
                self._save_between_steps()
        losses = self._mean_losses()  # waits for the device, so it comes before the clock
        self._check_finite()
        seconds = time.monotonic() - started
        p.train_seconds += seconds
        self._end_epoch(stage, steps, losses, sum(map(len, plan[first:])) / seconds)

    def _plan(self, stage: str) -> list[Tensor]:
        """The positions that each step of the present epoch sees; the same at every call."""
        t, d, p = self.recipe.training, self.data, self.progress
        g = seeds.generator(self.recipe.seed, p.stage, p.epoch)
        steps = t.stage_one_steps if stage == SUPERVISED else t.stage_two_steps
        if self._labels_alone(stage):
            return batches.labeled_only(d.labeled, t.batch_size, steps, g)
        return batches.two_streams(
            d.labeled, d.unlabeled, t.batch_size, t.labeled_per_batch, steps, g
        )

    def _labels_alone(self, stage: str) -> bool:
        """Whether an epoch of that stage shows labelled examples only."""
        unlabeled = self.learner.consistency.needs_unlabeled and len(self.data.unlabeled) > 0
        return stage == SUPERVISED and not unlabeled

    def _total_steps(self) -> int:
        """Steps of the whole present stage."""
        name, epochs = self.stages[self.progress.stage]
        return epochs * len(self._plan(name)) if epochs else 0

    def _own(self, stage: str, size: int) -> int:
        """How many images of a planned batch, the first ones, have a label of their own."""
        return size if self._labels_alone(stage) else self.recipe.training.labeled_per_batch

    def _mean_losses(self) -> dict[str, float]:
        """Each term's mean over the steps so far and the processes; waits for the device."""
        return {name: total / self.losses.steps for name, total in self._sums().items()}

    def _sums(self) -> dict[str, float]:
        sums = self.losses.sums()
        totals = self.processes.totals(list(sums.values()))
        size = self.processes.size
        return {name: total / size for name, total in zip(sums, totals, strict=True)}

    def _step(self, positions: Tensor, images: Tensor, steps: int, size: int) -> None:
        """One optimizer step on the images at these positions; adds its losses to the epoch's.

        size: of the whole batch, of which these are this process's share.
        """
        p = self.progress
        stage, epochs = self.stages[p.stage]
        pseudo, together = self._labels(), self.processes
        own = self._own(stage, size)
        counts = batches.share_sizes(size, own, together)
        # stage + 1: the bare seed is the network's initialisation
        place = (p.stage + 1, p.epoch, p.step)
        seeds.seed_step(self.recipe.seed, *place, *(() if together.alone else (together.rank,)))
        batch = Batch(
            images=images,
            index=positions,
            labels=pseudo.labels[positions],
            certainty=pseudo.certainty[positions],
            class_weights=pseudo.class_weights,
            num_labeled=len(range(own)[together.share(own)]),
            propagated=stage == PROPAGATION,
            probabilities=None if pseudo.probabilities is None else pseudo.probabilities[positions],
            whole=None if together.alone else Counts(own, size),
        )
        losses = self.learner.step(
            batch,
            p.epoch * steps + p.step,
            p.epoch + p.step / steps,
            epochs,
            lambda rows: together.gather_rows(rows, counts),
        )
        self.losses.add(losses)

    def _labels(self) -> PseudoLabelState:
        """The present ones, less those of images that could not be read."""
        left_out = self.data.train.unreadable
        if len(left_out) > self._left_out:  # not in every step: it copies positions to the device
            self.pseudo, self._left_out = self.pseudo.without(left_out), len(left_out)
        return self.pseudo

    def _check_losses(self) -> None:
        """Raise DivergenceError if a loss of this epoch was not finite."""
        if (bad := self.losses.first_bad_step()) is not None:
            step, total = bad
            raise self._diverged(f"the loss is {total}", step)

    def _check_finite(self) -> None:
        """The same, also where the last step has made the weights infinite or NaN."""
        self._check_losses()
        norms = [w.detach().float().norm() for w in self.learner.network.parameters()]
        if not torch.stack(norms).isfinite().all():
            raise self._diverged("the network's weights are not finite", self.progress.step)

    def _diverged(self, what: str, step: int) -> DivergenceError:
        t, p = self.recipe.training, self.progress
        place = f"in epoch {p.epoch + 1} of stage '{self.stages[p.stage][0]}', step {step}"
        tries = ["a smaller learning rate", "optimizer.clip_norm = 1"]
        rate = self.recipe.optimizer.params.get("learning_rate")
        if rate is not None:
            tries[0] = f"a smaller optimizer.learning_rate (now {rate})"
        if t.precision != "float32":
            tries.append('training.precision = "float32"')
        kept = f" {self.folder.training} is from before." if self.folder.training.is_file() else ""
        return DivergenceError(
            f"Training has diverged: {what} {place}. Try {', or '.join(tries)}.{kept}"
        )

    def _save_between_steps(self) -> None:
        due = time.monotonic() - self._saved >= self.recipe.training.checkpoint_seconds
        stop, save = self._agreement.ask(self._interrupts.asked, due)
        if stop or save:
            self.save()
        if stop:
            self.tell(events.RunInterrupted(self.folder.path))
            self.processes.barrier()  # a launcher ends all when one has ended
            raise KeyboardInterrupt

    # -- between epochs --------------------------------------------------------------------------

    def _refresh(self) -> None:
        """New pseudo-labels from the network as it is."""
        p = self.progress
        self.tell(events.PhaseStarted("propagate"))
        try:
            found = self.labeler.refresh(self.pseudo)
        except DivergenceError as error:
            raise self._diverged(str(error), p.step) from None
        self.pseudo, self._left_out = found.state, 0
        self.learner.consistency.after_refresh(self.learner.network, found.pseudo)
        p.health = found.metrics()
        if self.processes.first:
            self._write_pseudo_labels()
        self.tell(
            events.PseudoLabelsRefreshed(
                p.epoch, found.pseudo.health, found.certainty, found.accuracy, found.seconds
            )
        )

    def _write_pseudo_labels(self) -> None:
        pseudo = self._labels()
        arrays = {"index": self.data.indices.numpy(), **pseudo.arrays()}
        write_pseudo_label_table(self.folder, self.data, pseudo)

        def write(path: Path) -> None:
            with path.open("wb") as file:  # an open file: savez would add .npz to the name
                np.savez(file, **arrays)

        write_with(self.folder.pseudo_labels, write)

    def _end_epoch(self, stage: str, steps: int, losses: dict[str, float], speed: float) -> None:
        p, t = self.progress, self.recipe.training
        metrics: dict[str, Any] = {"stage": stage, "epoch": p.epoch, "steps": steps}
        metrics.update({f"loss_{name}": mean for name, mean in losses.items()})
        last = p.epoch + 1 == self.stages[p.stage][1]
        if last or (p.epoch + 1) % t.evaluate_every == 0:
            self.tell(events.PhaseStarted("evaluate"))
            metrics.update(self._measure())
        metrics.update(p.health)
        metrics.update(learning_rate=self.learner.learning_rate, images_per_second=speed)
        metrics["seconds"] = self.seconds()
        p.history.append(metrics)
        p.epoch, p.step, self.losses = p.epoch + 1, 0, EpochLosses()
        self.tell(events.EpochDone(stage, p.epoch - 1, metrics))
        if last:
            if stage == SUPERVISED:  # before the checkpoint that says stage one is done
                self._write(self.folder.stage_one)
            self.save()
        self._save_between_steps()

    def _measure(self) -> dict[str, float]:
        """Errors in percent of student and teacher; the validation split alone chooses the best."""
        d, found = self.data, {}
        for name, network in ((STUDENT, self.learner.network), (TEACHER, self.learner.teacher)):
            if network is None:
                continue
            errors = {}
            if d.test is not None:
                test = self._errors(network, d.test, d.test_labels)
                errors = {f"test_{k}": v for k, v in test.items()}
            if d.validation is not None:
                validation = self._errors(network, d.validation, d.validation_labels)
                errors["validation_error"] = validation["error"]
                self._keep_best(name, network, errors)
            found.update({metric(name, k): v for k, v in errors.items()})
        return found

    def _errors(
        self, network: torch.nn.Module, images: batches.ImageStore, labels: Tensor
    ) -> dict[str, float]:
        with self.accelerator.autocast():
            return evaluate.errors(network, images, labels, self.learner.plain, self.processes)

    def _keep_best(self, name: str, network: torch.nn.Module, errors: dict[str, float]) -> None:
        best = self.progress.best.setdefault(self.stages[self.progress.stage][0], {})
        if name not in best or errors["validation_error"] < best[name]["validation_error"]:
            best[name] = errors
            if self.processes.first:
                checkpoint.save(self.folder.best_weights(name), network.state_dict())

    # -- saving and loading ----------------------------------------------------------------------

    def state(self) -> tuple[checkpoint.State, dict[str, Any]]:
        """All tensors and numbers from which `load` continues bit for bit.

        The same in all processes, which all call it.
        """
        tensors, numbers = self.learner.state()
        progress = replace(self.progress, seconds=self.seconds(), sums=self._sums())
        return (
            {**tensors, **checkpoint.add_prefix("pseudo", self.pseudo.tensors())},
            {**numbers, **asdict(progress)},
        )

    def load(self, tensors: checkpoint.State, numbers: dict[str, Any]) -> None:
        """The reverse of `state`."""
        own = Progress.__dataclass_fields__.keys()
        self.progress = Progress(**{k: v for k, v in numbers.items() if k in own})
        self._started = time.monotonic()
        self.losses = EpochLosses(self.progress.sums, self.progress.step)
        self.learner.load(tensors, numbers, self._total_steps())
        self.labeler.check_teacher()
        self.pseudo = PseudoLabelState.from_tensors(
            checkpoint.with_prefix("pseudo", tensors), self.device
        )

    def save(self) -> None:
        """Write the checkpoint that a resume continues from.

        Raises:
            DivergenceError: there is nothing worth saving; the last checkpoint stays.
        """
        self._check_finite()
        self._write(self.folder.training, self.folder.training_previous)
        self._saved = time.monotonic()
        self.tell(events.CheckpointSaved(self.folder.training))

    def _write(self, path: Path, previous: Path | None = None) -> None:
        tensors, numbers = self.state()
        if self.processes.first:
            checkpoint.save(path, tensors, numbers, previous)

    def seconds(self) -> float:
        """Of the whole run so far, earlier parts of a resumed one included."""
        return self.progress.seconds + time.monotonic() - self._started
