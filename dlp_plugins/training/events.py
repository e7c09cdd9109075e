"""What happens in a run, for those who watch it: the display, the trackers, a test.

The trainer emits events and does not know who listens. A listener is any callable of one event.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlp_plugins.propagation import Health


@dataclass(frozen=True)
class RunStarted:
    """folder: where the run writes. device: in words. resumed: continues from a checkpoint.

    history: metrics of the epochs done before, in order.
    """

    folder: Path
    description: str
    device: str
    num_train: int
    num_labeled: int
    num_test: int
    num_classes: int
    stages: tuple[tuple[str, int], ...]  # (name, epochs) of each stage that will run
    resumed: bool
    history: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class StageStarted:
    """first_epoch: epochs of this stage that were done before (resumed), from 0."""

    stage: str  # "supervised" or "propagation"
    epochs: int
    first_epoch: int


@dataclass(frozen=True)
class EpochStarted:
    """Epochs and steps count from 0; first_step is above 0 after a resume within the epoch."""

    stage: str
    epoch: int
    steps: int
    first_step: int


@dataclass(frozen=True)
class PhaseStarted:
    """Work between epochs that takes a while: 'propagate' or 'evaluate'."""

    phase: str


@dataclass(frozen=True)
class PseudoLabelsRefreshed:
    """certainty: mean over the unlabelled. accuracy: percent right, where truth is known."""

    epoch: int
    health: Health
    certainty: float
    accuracy: float | None
    seconds: float


@dataclass(frozen=True)
class StepDone:
    """losses: each term's running mean over the epoch so far."""

    step: int
    losses: dict[str, float]
    learning_rate: float
    images_per_second: float


@dataclass(frozen=True)
class EpochDone:
    """metrics: what the trackers take down."""

    stage: str
    epoch: int
    metrics: dict[str, Any]


@dataclass(frozen=True)
class CheckpointSaved:
    path: Path


@dataclass(frozen=True)
class RunDone:
    """summary: what goes to summary.json."""

    folder: Path
    summary: dict[str, Any]


@dataclass(frozen=True)
class RunInterrupted:
    """Ctrl-C: everything is saved; `dlp run` with --resume goes on from here."""

    folder: Path


@dataclass(frozen=True)
class Note:
    """Something that a person should read, as a sentence: an older checkpoint had to be used."""

    text: str


class StopRun(BaseException):  # as a KeyboardInterrupt, no failure
    """A listener raises it to end the run: what it has saved stays, and it can be resumed."""


Event = (
    RunStarted | StageStarted | EpochStarted | PhaseStarted | PseudoLabelsRefreshed
    | StepDone | EpochDone | CheckpointSaved | RunDone | RunInterrupted | Note
)  # fmt: skip
Listener = Callable[[Event], None]


class Listeners:
    """Many listeners as one, of which none can break a run: one that raises is dropped, with a
    warning. Only a KeyboardInterrupt passes, and `StopRun`.
    """

    def __init__(self, listeners: Iterable[Callable[[Any], None]] = ()) -> None:
        self._listeners = list(listeners)

    def add(self, listeners: Iterable[Callable[[Any], None]]) -> None:
        self._listeners += listeners

    def __call__(self, event: Any) -> None:
        for listener in list(self._listeners):
            try:
                listener(event)
            except (Exception, SystemExit) as error:  # Rich leaves the program at a closed pipe
                self._listeners.remove(listener)
                name = getattr(listener, "__qualname__", type(listener).__qualname__)
                warnings.warn(
                    f"{name} failed and gets no more events; the run goes on. "
                    f"{type(error).__name__}: {error}",
                    stacklevel=2,
                )
