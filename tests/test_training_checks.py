"""The checks of augmentations, optimizers, schedules, sources and trackers can fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dlp_plugins import testing
from dlp_plugins.augmentations.contract import Augmentation
from dlp_plugins.propagation import PseudoLabels
from dlp_plugins.schedules.contract import Schedule
from dlp_plugins.sources.contract import Refresh
from dlp_plugins.sources.graph import GraphSource
from dlp_plugins.sources.network import NetworkSource
from dlp_plugins.sources.teacher import TeacherSource
from dlp_plugins.trackers.contract import Tracker

pytestmark = pytest.mark.usefixtures("one_thread")


class Views(Augmentation):
    """Noise of each example's own, unless told otherwise."""

    def __init__(
        self,
        weak: Callable[[Tensor], Tensor] = lambda x: x + torch.randn(len(x), 1, 1, 1),
        plain: Callable[[Tensor], Tensor] = lambda x: x,
    ) -> None:
        self._weak, self._plain = weak, plain

    def plain(self, examples: Tensor) -> Tensor:
        return self._plain(examples.float())

    def weak(self, examples: Tensor) -> Tensor:
        return self._weak(examples.float())


class InPlace(Views):
    def plain(self, examples: Tensor) -> Tensor:
        return examples.mul_(2).float()


def test_check_augmentation_passes_what_the_faults_start_from() -> None:
    testing.check_augmentation(Views())


def test_check_augmentation_takes_vectors() -> None:
    testing.check_augmentation("noise", input_shape=(5,))


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (InPlace(), "changes the examples"),
        (Views(lambda x: x[:, :, 1:]), "must be"),
        (Views(lambda x: x.double() + torch.randn(len(x), 1, 1, 1)), r"must be torch\.float32"),
        (Views(lambda x: x + torch.randn(1)), "every example must draw its own"),
        (Views(lambda x: x + torch.arange(len(x))[:, None, None, None]), "second call"),
        (Views(lambda x: x + float(np.random.rand())), "global generator"),
        (Views(lambda x: x.contiguous() + torch.randn(len(x), 1, 1, 1)), "memory format"),
        (Views(plain=lambda x: x - x.mean(0)), "depends on the other examples"),
    ],
)
def test_check_augmentation_finds(broken: Augmentation, sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        testing.check_augmentation(broken)


class Momentum(torch.optim.SGD):
    """SGD whose step may be spoilt."""

    def __init__(self, params: Any, learning_rate: float, fault: str) -> None:
        super().__init__(params, lr=learning_rate, momentum=0.9)
        self.fault, self.rate, self.taken = fault, learning_rate, 0
        if fault == "own groups":
            self.param_groups[0].pop("rate")

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.taken += 1
        rates = [group["lr"] for group in self.param_groups]
        factors = {"ascends": -1.0, "counts by itself": 1 / self.taken}
        for group, rate in zip(self.param_groups, rates, strict=True):
            group["lr"] = rate * factors.get(self.fault, 1.0)
            if self.fault == "own rate":
                group["lr"] = self.rate
            if self.fault == "a number as state":
                for p in group["params"]:
                    self.state[p]["count"] = self.taken
        super().step(closure)
        for group, rate in zip(self.param_groups, rates, strict=True):
            group["lr"] = rate


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("own groups", "with all their keys"),
        ("ascends", "do not descend"),
        ("own rate", "at learning rate 0 parameters move"),
        ("counts by itself", "takes other steps"),
        ("a number as state", "tensors only; not one: count"),
    ],
)
def test_check_optimizer_finds(fault: str, sentence: str) -> None:
    testing.check_optimizer(Momentum, fault="none")
    with pytest.raises(AssertionError, match=sentence):
        testing.check_optimizer(Momentum, fault=fault)


@pytest.mark.parametrize("name", ["torch:Adam", "torch:Adafactor", "torch:RMSprop"])
def test_members_of_torchs_family_pass(name: str) -> None:
    testing.check_optimizer(name)


@dataclass(frozen=True)
class Formula(Schedule):
    value: Callable[[float], float] = lambda epoch: 1.0

    def factor(self, epoch: float, epochs: int) -> float:
        return self.value(epoch)


class Jump(Formula):
    def __call__(self, epoch: float, epochs: int) -> float:
        return 0.0 if epoch < self.warmup_epochs else self.factor(epoch, epochs)


def counting() -> Callable[[float], float]:
    calls: list[float] = []
    return lambda epoch: calls.append(epoch) or 1 / len(calls)  # type: ignore[func-returns-value]


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (Formula(value=lambda epoch: 1 - epoch), "0 or more; at epoch"),
        (Formula(value=lambda epoch: float("nan")), "must be finite"),
        (Formula(value=counting()), "depend on the place alone"),
        (Jump(), r"at 0\.25 of the warm-up"),
    ],
)
def test_check_schedule_finds(broken: Schedule, sentence: str) -> None:
    testing.check_schedule(Formula())
    with pytest.raises(AssertionError, match=sentence):
        testing.check_schedule(broken)


class Changed(GraphSource):
    def __init__(self, change: Callable[[PseudoLabels], Any]) -> None:
        self.change = change

    def pseudo_labels(self, refresh: Refresh) -> PseudoLabels:
        return self.change(super().pseudo_labels(refresh))


class Secretly(TeacherSource):
    needs_teacher = False


class Overwrites(NetworkSource):
    def pseudo_labels(self, refresh: Refresh) -> PseudoLabels:
        found = super().pseudo_labels(refresh)
        refresh.labels.copy_(found.labels)
        return found


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (Changed(lambda found: found.labels), "must return PseudoLabels"),
        (Changed(lambda f: replace(f, labels=f.labels * 0)), "must keep its label"),
        (Changed(lambda f: replace(f, labels=f.labels + 1)), "must lie in -1"),
        (Changed(lambda f: replace(f, certainty=f.certainty / 2)), "with certainty 1"),
        (Changed(lambda f: replace(f, certainty=2 * f.certainty)), r"must lie in 0\.\.1"),
        (
            Changed(lambda f: replace(f, labels=f.labels.clone().index_fill_(
                0, torch.randint(10, 60, (20,)), 0))),
            "of the same network differ",
        ),
        (Overwrites(), "changes the labels"),
    ],
)  # fmt: skip
def test_check_source_finds(broken: Any, sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        testing.check_source(broken)


def test_check_source_finds_one_that_needs_a_teacher_without_saying_so() -> None:
    with pytest.raises(Exception, match="keeps no teacher"):
        testing.check_source(Secretly())


class Notes(Tracker):
    def __init__(self, folder: Path, fault: str) -> None:
        self.folder, self.fault = folder, fault

    def begin(self, name: str, settings: dict[str, Any], history: Any) -> None:
        (self.folder / "trackers").mkdir(exist_ok=self.fault != "fresh only")

    def log(self, metrics: dict[str, Any], step: int) -> None:
        place = self.folder if self.fault == "foreign" else self.folder / "trackers"
        with (place / "notes.txt").open("a") as file:
            numbers = [float(v) for v in metrics.values()] if self.fault == "numbers" else metrics
            file.write(f"{step} {numbers}\n")
        if self.fault == "changes":
            metrics.pop("stage")


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("fresh only", "fails in a resumed run: FileExistsError"),
        ("numbers", "fails in a run: ValueError"),
        ("foreign", r"notes\.txt in the run folder"),
        ("changes", "changes the metrics"),
    ],
)
def test_check_tracker_finds(fault: str, sentence: str) -> None:
    testing.check_tracker(Notes, fault="none")
    with pytest.raises(AssertionError, match=sentence):
        testing.check_tracker(Notes, fault=fault)
