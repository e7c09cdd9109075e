"""The two stages, step by step. Everything that a resume needs lives in `Trainer.state`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from dlp_plugins import registry
from dlp_plugins.augmentations._augmenter import Augmenter
from dlp_plugins.consistency.contract import Batch, Consistency, Step
from dlp_plugins.network import Network
from dlp_plugins.recipe.build import build_propagator
from dlp_plugins.recipe.model import Recipe
from dlp_plugins.schedules.cosine import cosine
from dlp_plugins.training import batches, checkpoint, evaluate, events, pseudo_labels, seeds
from dlp_plugins.training.data import RunData
from dlp_plugins.training.folder import RunFolder, write_with
from dlp_plugins.training.interrupts import Interrupts

SUPERVISED, PROPAGATION = "supervised", "propagation"
# Seconds between two StepDone events: reading a loss from a GPU waits for it.
REPORT_SECONDS = 0.25


@dataclass
class Progress:
    """Where the run stands; saved as numbers with every checkpoint.

    stage: index into Trainer.stages. step: steps done of this epoch. sums: their losses, summed.
    train_seconds, images: of all steps so far. seconds: of the whole run so far.
    """

    stage: int = 0
    epoch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    health: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, dict[str, float]] = field(default_factory=dict)
    images: int = 0
    train_seconds: float = 0.0
    seconds: float = 0.0


class Trainer:
    """Trains one network through both stages.

    Args:
        recipe: what to train and how.
        data: images and labels, on the accelerator's device.
        accelerator: device, mixed precision and the backward pass.
        folder: where checkpoints and metrics go.
        listeners: told of everything that happens.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: RunData,
        accelerator: Accelerator,
        folder: RunFolder,
        listeners: Sequence[events.Listener] = (),
    ) -> None:
        self.recipe, self.data, self.folder, self.listeners = recipe, data, folder, listeners
        self.accelerator = accelerator
        self.device = accelerator.device
        t = recipe.training
        self.stages = [(SUPERVISED, t.stage_one_epochs), (PROPAGATION, t.stage_two_epochs)]
        self.augment = Augmenter(recipe.augmentation, data.dataset.mean, data.dataset.std)
        part = recipe.consistency
        self.consistency: Consistency = registry.consistency.build(
            part.name, num_classes=data.dataset.num_classes, **part.params
        )
        self.network = self._build_network()
        self.forward = torch.compile(self.network) if t.compile else self.network
        self.optimizer = accelerator.prepare(
            torch.optim.SGD(
                self.network.parameters(),
                lr=t.learning_rate,
                momentum=t.momentum,
                weight_decay=t.weight_decay,
                nesterov=t.momentum > 0,
            )
        )
        self.propagator = build_propagator(recipe)
        self.pseudo = pseudo_labels.initial_tensors(data)
        self.progress = Progress()
        self._sums: dict[str, Any] = {}
        self._interrupts = Interrupts()
        self._started = time.monotonic()
        self._saved = time.monotonic()

    def _build_network(self) -> Network:
        part, train = self.recipe.backbone, self.data.train.source
        channels, height, _ = train.shape
        seeds.seed_step(self.recipe.seed)
        backbone = registry.backbones.build(
            part.name, in_channels=channels, image_size=height, **part.params
        )
        network = Network(
            backbone,
            self.data.dataset.num_classes,
            heads=self.consistency.heads,
            normalize_descriptor=part.normalize_descriptor,
        )
        self.consistency.extend(network)
        network = network.to(self.device)
        if self.recipe.training.channels_last:
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network

    # -- the run ----------------------------------------------------------------------------------

    def run(self) -> None:
        """From where `progress` stands to the end; an interrupt saves first."""
        with Interrupts() as self._interrupts:
            for index in range(self.progress.stage, len(self.stages)):
                self._run_stage(index)

    def begin(self) -> None:
        """Set up the first stage of a fresh run."""
        self._begin_stage()

    def _begin_stage(self) -> None:
        name, epochs = self.stages[self.progress.stage]
        steps = epochs * len(self._plan(name)) if epochs else 0
        self.consistency.begin_stage(self.network, len(self.data.truth), steps)

    def _num_labeled(self, size: int) -> int:
        """Labelled examples of a batch of that size: all, unless it shows unlabelled ones too."""
        stage = self.stages[self.progress.stage][0]
        return size if self._labels_alone(stage) else self.recipe.training.labeled_per_batch

    def _labels_alone(self, stage: str) -> bool:
        unlabeled = self.consistency.needs_unlabeled and len(self.data.unlabeled)
        return stage == SUPERVISED and not unlabeled

    def _run_stage(self, index: int) -> None:
        name, epochs = self.stages[index]
        p = self.progress
        if p.stage != index:
            p.stage, p.epoch, p.step, p.health = index, 0, 0, {}
            self.begin()
        if p.epoch >= epochs:
            return
        self._tell(events.StageStarted(name, epochs, p.epoch))
        while p.epoch < epochs:
            self._run_epoch(name)
        if name == SUPERVISED:
            checkpoint.save(self.folder.stage_one, *self.state())

    def _run_epoch(self, stage: str) -> None:
        p, every = self.progress, self.recipe.pseudo_labels.refresh_epochs
        if stage == PROPAGATION and p.step == 0 and p.epoch % every == 0:
            self._refresh()
        plan = self._plan(stage)
        self._tell(events.EpochStarted(stage, p.epoch, len(plan), p.step))
        if p.step == 0:
            self.consistency.begin_epoch(self.network, p.epoch)
        first, started, reported = p.step, time.monotonic(), 0.0
        images = self.data.train.batches(plan[first:])
        for positions, batch in zip(plan[first:], images, strict=True):
            self._step(positions.to(self.device), batch, len(plan))
            p.step += 1
            p.images += len(positions)
            now = time.monotonic()
            if now - reported > REPORT_SECONDS:
                reported = now
                speed = (p.step - first) * len(positions) / (now - started)
                self._tell(events.StepDone(p.step, self._mean_losses(), self._rate(), speed))
            if p.step < len(plan):
                self._save_between_steps()
        losses = self._mean_losses()  # waits for the device, so it comes before the clock
        seconds = time.monotonic() - started
        p.train_seconds += seconds
        speed = sum(map(len, plan[first:])) / seconds
        self._end_epoch(stage, len(plan), losses, speed)

    def _save_between_steps(self) -> None:
        try:
            self._interrupts.check()
        except KeyboardInterrupt:
            self.save()
            self._tell(events.RunInterrupted(self.folder.path))
            raise
        if time.monotonic() - self._saved >= self.recipe.training.checkpoint_seconds:
            self.save()

    def _mean_losses(self) -> dict[str, float]:
        """Each term's mean over the steps of this epoch so far."""
        return {k: float(v) / self.progress.step for k, v in self._sums.items()}

    def _rate(self) -> float:
        return self.optimizer.param_groups[0]["lr"]

    def _plan(self, stage: str) -> list[Tensor]:
        """The positions that each step of the present epoch sees; the same at every call."""
        t, d, p = self.recipe.training, self.data, self.progress
        g = seeds.generator(self.recipe.seed, p.stage, p.epoch)
        steps = t.stage_one_steps if stage == SUPERVISED else None
        if self._labels_alone(stage):
            return batches.labeled_only(d.labeled, t.batch_size, steps, g)
        return batches.two_streams(
            d.labeled, d.unlabeled, t.batch_size, t.labeled_per_batch, steps, g
        )

    def _step(self, positions: Tensor, images: Tensor, steps: int) -> None:
        """One optimiser step on the images at these positions; adds its losses to the epoch's."""
        p, t = self.progress, self.recipe.training
        epoch = p.epoch + p.step / steps
        for group in self.optimizer.param_groups:
            group["lr"] = cosine(t.learning_rate, epoch, t.cosine_epochs)
        # stage + 1: the bare seed is the network's initialisation
        seeds.seed_step(self.recipe.seed, p.stage + 1, p.epoch, p.step)
        step = Step(
            student=self.forward,  # type: ignore[arg-type]
            batch=Batch(
                images=images,
                index=positions,
                labels=self.pseudo["labels"][positions],
                certainty=self.pseudo["certainty"][positions],
                class_weights=self.pseudo["class_weights"],
                num_labeled=self._num_labeled(len(positions)),
                propagated=p.stage == 1,
            ),
            weak=self._weak,
            strong=self._strong,
            number=p.epoch * steps + p.step,
            epoch=epoch,
            total_steps=steps * self.stages[p.stage][1],
        )
        self.network.train()
        with self.accelerator.autocast():
            losses = self.consistency.losses(step)
            total = torch.stack([loss.float() for loss in losses.values()]).sum()
        self.optimizer.zero_grad()
        self.accelerator.backward(total)
        self.optimizer.step()
        self.consistency.after_step(self.network, step.number)
        for name, loss in {**losses, "total": total}.items():
            self._sums[name] = self._sums.get(name, 0.0) + loss.detach().double()

    def _layout(self, view: Tensor) -> Tensor:
        if self.recipe.training.channels_last:
            return view.contiguous(memory_format=torch.channels_last)
        return view

    def _weak(self, images: Tensor) -> Tensor:
        return self._layout(self.augment.weak(images))

    def _strong(self, images: Tensor) -> Tensor:
        return self._layout(self.augment.strong(images))

    def _plain(self, images: Tensor) -> Tensor:
        return self._layout(self.augment.plain(images))

    def _refresh(self) -> None:
        settings, p = self.recipe.pseudo_labels, self.progress
        self._tell(events.PhaseStarted("propagate"))
        started = time.monotonic()
        with self.accelerator.autocast():
            pseudo = pseudo_labels.refresh(
                settings.source,
                self.network,
                self.propagator,
                self.data,
                self._plain,
                self.pseudo.get("scores"),
            )
        self.pseudo = pseudo_labels.tensors(pseudo, settings.warm_start)
        self.consistency.after_refresh(self.network, pseudo)
        right = pseudo_labels.accuracy(pseudo, self.data.truth, self.data.unlabeled)
        certainty = pseudo_labels.mean_certainty(pseudo, self.data.unlabeled)
        seconds = time.monotonic() - started
        p.health = {**pseudo_labels.flatten_health(pseudo), "certainty": certainty}
        p.health["propagation_seconds"] = seconds
        if right is not None:
            p.health["pseudo_label_accuracy"] = right
        self._write_pseudo_labels()
        self._tell(events.PseudoLabelsRefreshed(p.epoch, pseudo.health, certainty, right, seconds))

    def _write_pseudo_labels(self) -> None:
        arrays = pseudo_labels.cpu_arrays(self.pseudo)

        def write(path: Any) -> None:
            with path.open("wb") as file:  # an open file: savez would add .npz to the name
                np.savez(file, **arrays)

        write_with(self.folder.pseudo_labels, write)

    def _end_epoch(self, stage: str, steps: int, losses: dict[str, float], speed: float) -> None:
        p, t = self.progress, self.recipe.training
        line: dict[str, Any] = {"stage": stage, "epoch": p.epoch, "steps": steps}
        line.update({f"loss_{name}": mean for name, mean in losses.items()})
        last = p.epoch + 1 == dict(self.stages)[stage]
        if last or (p.epoch + 1) % t.evaluate_every == 0:
            self._tell(events.PhaseStarted("evaluate"))
            line.update(self._measure())
        line.update(p.health)
        line.update(learning_rate=self._rate(), images_per_second=speed, seconds=self.seconds())
        p.history.append(line)
        p.epoch, p.step, self._sums = p.epoch + 1, 0, {}
        self.folder.write_metrics(p.history)
        self._tell(events.EpochDone(stage, p.epoch - 1, line))
        if last:
            self.save()
        self._save_between_steps()

    def _measure(self) -> dict[str, float]:
        """Errors in percent of student and teacher; the validation split alone chooses the best."""
        d, found = self.data, {}
        networks = {"": self.network, "teacher_": self.consistency.teacher}
        for prefix, network in networks.items():
            if network is None:
                continue
            with self.accelerator.autocast():
                test = evaluate.errors(network, d.test, d.test_labels, self._plain)
                found.update({f"{prefix}test_{k}": v for k, v in test.items()})
                if d.validation is None:
                    continue
                chosen_by = evaluate.errors(
                    network, d.validation, d.validation_labels, self._plain
                )["error"]
            found[f"{prefix}validation_error"] = chosen_by
            best = self.progress.best.get(prefix)
            if best is None or chosen_by < best["validation_error"]:
                self.progress.best[prefix] = {
                    "validation_error": chosen_by,
                    **{f"test_{k}": v for k, v in test.items()},
                }
                checkpoint.save(
                    self.folder.checkpoint / f"best_{prefix or 'student_'}weights.safetensors",
                    network.state_dict(),
                )
        return found

    # -- saving and loading -----------------------------------------------------------------------

    def state(self) -> tuple[checkpoint.State, dict[str, Any]]:
        """All tensors and numbers from which `load` continues bit for bit."""
        self.progress.seconds = self.seconds()
        self._started = time.monotonic()
        self.progress.sums = {k: float(v) for k, v in self._sums.items()}
        slots = self.optimizer.state_dict()["state"]
        momentum = {
            f"{i}.{k}": v
            for i, slot in slots.items()
            for k, v in slot.items()
            if torch.is_tensor(v)
        }
        tensors = {
            **checkpoint.add_prefix("student", self.network.state_dict()),
            **checkpoint.add_prefix("consistency", self.consistency.state()),
            **checkpoint.add_prefix("optimizer", momentum),
            **checkpoint.add_prefix("pseudo", self.pseudo),
        }
        numbers = asdict(self.progress)
        if self.accelerator.scaler is not None:
            numbers["scaler"] = self.accelerator.scaler.state_dict()
        return tensors, numbers

    def load(self, tensors: checkpoint.State, numbers: dict[str, Any]) -> None:
        """The reverse of `state`."""
        numbers = dict(numbers)
        if (scaler := numbers.pop("scaler", None)) and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(scaler)
        self.progress = Progress(**numbers)
        self._sums = {
            k: torch.tensor(v, dtype=torch.float64) for k, v in self.progress.sums.items()
        }
        self.network.load_state_dict(checkpoint.with_prefix("student", tensors))
        self._begin_stage()
        self.consistency.load_state(checkpoint.with_prefix("consistency", tensors))
        optimizer = self.optimizer.state_dict()
        for key, value in checkpoint.with_prefix("optimizer", tensors).items():
            index, _, name = key.partition(".")
            optimizer["state"].setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict(optimizer)
        self.pseudo = {
            k: v.to(self.device) for k, v in checkpoint.with_prefix("pseudo", tensors).items()
        }

    def save(self) -> None:
        """Write the checkpoint that a resume continues from."""
        checkpoint.save(self.folder.training, *self.state())
        self._saved = time.monotonic()
        self._tell(events.CheckpointSaved(self.folder.training))

    def seconds(self) -> float:
        """Of the whole run so far, earlier parts of a resumed one included."""
        return self.progress.seconds + time.monotonic() - self._started

    def _tell(self, event: events.Event) -> None:
        for listener in self.listeners:
            listener(event)
