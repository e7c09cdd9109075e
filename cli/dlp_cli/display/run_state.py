"""Where a run stands, gathered from its events. Knows nothing of how it is shown."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dlp_plugins.propagation.health import Convergence
from dlp_plugins.training import events

PHASES = {"propagate": "spreading labels", "evaluate": "measuring"}


@dataclass
class RunState:
    """A listener that remembers. Every change replaces a value, so another thread may read at will.

    metrics: the newest value of each metric, whichever event brought it; losses as `loss_<term>`.
    history: (stage, epoch) to that epoch's metrics, also of epochs before a resume.
    done: epochs done of each stage. step, steps: within the present epoch.
    """

    title: str
    clock: Callable[[], float] = time.monotonic
    started: events.RunStarted | None = None
    stage: str = ""
    phase: str = "loading data"
    epochs: int = 0
    epoch: int = 0
    step: int = 0
    steps: int = 0
    done: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    history: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    _stage_began: float = 0.0
    _stage_first: float = 0.0  # epochs of the stage that were done when this process took it up

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.RunStarted():
                self.started, self.phase = event, "starting"
                self.history = {(line["stage"], line["epoch"]): line for line in event.history}
            case events.StageStarted():
                self.stage, self.epochs, self.epoch = event.stage, event.epochs, event.first_epoch
                self.step = self.steps = 0
                for name, epochs in self.started.stages if self.started else ():
                    if name == event.stage:
                        break
                    self.done = {**self.done, name: epochs}  # also one that a resume passes over
                self.done = {**self.done, event.stage: event.first_epoch}
                self._stage_began, self._stage_first = self.clock(), -1.0
            case events.EpochStarted():
                self.epoch, self.step, self.steps = event.epoch, event.first_step, event.steps
                self.phase = "training"
                if self._stage_first < 0:
                    self._stage_first = self.progress
            case events.PhaseStarted():
                self.phase = PHASES.get(event.phase, event.phase)
            case events.PseudoLabelsRefreshed():
                health = {k: v for k, v in event.health.as_dict().items() if v is not None}
                found = {"certainty": event.certainty, "propagation_seconds": event.seconds}
                if event.accuracy is not None:
                    found["pseudo_label_accuracy"] = event.accuracy
                self.metrics = {**self.metrics, **health, **found}
            case events.StepDone():
                self.step = event.step
                self.metrics = {
                    **self.metrics,
                    **{f"loss_{name}": loss for name, loss in event.losses.items()},
                    "learning_rate": event.learning_rate,
                    "images_per_second": event.images_per_second,
                }
            case events.EpochDone():
                self.step = self.steps
                self.done = {**self.done, event.stage: event.epoch + 1}
                self.metrics = {**self.metrics, **event.metrics}
                self.history = {**self.history, (event.stage, event.epoch): event.metrics}
            case events.RunDone():
                self.phase = "done"
            case events.RunInterrupted():
                self.phase = "interrupted"

    @property
    def progress(self) -> float:
        """Epochs of the present stage that are done, with the part of the one under way."""
        done = self.done.get(self.stage, 0)
        within = self.step / self.steps if self.steps and self.epoch >= done else 0.0
        return done + within

    @property
    def seconds_left(self) -> float | None:
        """Of the present stage, at the pace that it has had in this process; None at its start."""
        advanced = self.progress - max(self._stage_first, 0.0)
        if self._stage_first < 0 or advanced <= 0:
            return None
        pace = (self.clock() - self._stage_began) / advanced
        return pace * (self.epochs - self.progress)

    @property
    def convergence(self) -> Convergence | None:
        """Of the last propagation; None before there was one."""
        if self.metrics.get("residual") is None:
            return None
        return Convergence(*(self.metrics[k] for k in ("residual", "iterations", "converged")))

    def errors(self, key: str = "test_error") -> list[tuple[str, int, float]]:
        """(stage, epoch counted over all stages, error) of every epoch measured, in order."""
        found, before = [], 0
        for stage, epochs in self.started.stages if self.started else ():
            for epoch in range(epochs):
                if key in (line := self.history.get((stage, epoch), {})):
                    found.append((stage, before + epoch, line[key]))
            before += epochs
        return found

    def last_error(self, stage: str, key: str = "test_error") -> float | None:
        """The stage's last measured error."""
        return next((e for s, _, e in reversed(self.errors(key)) if s == stage), None)


def for_the_test(started: events.RunStarted) -> str:
    """How many images the error is measured on, in words."""
    return f"{started.num_test:,} for the test" if started.num_test else "none for the test"
