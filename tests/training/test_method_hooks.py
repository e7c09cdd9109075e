"""What a run gives a consistency method: batches, steps and hooks, in order and after a resume."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dlp_plugins.balancers import Balancer
from dlp_plugins.consistency import Batch, Consistency, Step
from dlp_plugins.network import Network
from dlp_plugins.propagation import PseudoLabels
from dlp_plugins.recipe.check import load_recipe
from dlp_plugins.registry import balancers, consistency
from dlp_plugins.training import events
from dlp_plugins.training.learner import Learner
from dlp_plugins.training.run import run

TINY = [
    "consistency=recorder", "dataset.num_train=300", "dataset.num_test=50", "backbone.width=4",
    "dataset.num_labeled=20", "training.batch_size=50", "training.labeled_per_batch=10",
    "training.stage_one_epochs=2", "training.stage_one_steps=2", "training.stage_two_epochs=2",
    "training.evaluate_every=1000", "training.checkpoint_seconds=0",
]  # fmt: skip
STEPS_OF_STAGE_TWO = 280 // 40
calls: list[tuple[Any, ...]] = []
batches: list[Batch] = []
epochs: list[float] = []
refreshes: list[PseudoLabels] = []


class Recorder(Consistency):
    """Writes down every call."""

    def begin_stage(self, student: Network, num_examples: int, total_steps: int) -> None:
        calls.append(("begin_stage", num_examples, total_steps))

    def after_refresh(self, student: Network, pseudo_labels: PseudoLabels) -> None:
        calls.append(("after_refresh", len(pseudo_labels.labels)))
        refreshes.append(pseudo_labels)

    def begin_epoch(self, student: Network, epoch: int) -> None:
        calls.append(("begin_epoch", epoch))

    def losses(self, step: Step) -> dict[str, Tensor]:
        calls.append(("step", step.number, step.total_steps))
        batches.append(step.batch)
        epochs.append(step.epoch)
        return super().losses(step)


@pytest.fixture(autouse=True)
def recorder() -> Any:
    for kept in (calls, batches, epochs, refreshes):
        kept.clear()
    consistency.register("recorder")(Recorder)
    yield
    consistency.unregister("recorder")


def stage(steps: int, *, refreshed: bool) -> list[tuple[Any, ...]]:
    """The calls of a stage of two epochs."""
    expected: list[tuple[Any, ...]] = [("begin_stage", 300, 2 * steps)]
    for epoch in range(2):
        expected += [("after_refresh", 300)] if refreshed else []
        expected += [("begin_epoch", epoch)]
        expected += [("step", epoch * steps + i, 2 * steps) for i in range(steps)]
    return expected


EXPECTED = stage(2, refreshed=False) + stage(STEPS_OF_STAGE_TWO, refreshed=True)


def test_the_hooks_of_a_run(tmp_path: Path) -> None:
    run(load_recipe("digits", TINY), tmp_path / "run", device="cpu")
    assert calls == EXPECTED


def test_a_resume_in_the_middle_of_an_epoch_begins_the_stage_but_not_the_epoch(
    tmp_path: Path,
) -> None:
    def break_off(event: Any) -> None:
        # the checkpoint after the fourth step of stage two's first epoch has just been written
        if isinstance(event, events.CheckpointSaved) and calls[-1] == ("step", 3, 14):
            raise KeyboardInterrupt

    recipe = load_recipe("digits", TINY)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, tmp_path / "run", device="cpu", listeners=[break_off])
    assert calls == EXPECTED[: len(calls)]
    broken_off = len(calls)
    run(recipe, tmp_path / "run", device="cpu", resume=True)
    assert calls[broken_off:] == [("begin_stage", 300, 14), *EXPECTED[broken_off:]]


@pytest.mark.parametrize("soft", [False, True])
def test_the_batches_of_a_run(tmp_path: Path, soft: bool) -> None:
    settings = [*TINY, f"training.soft_labels={str(soft).lower()}"]
    run(load_recipe("digits", settings), tmp_path / "run", device="cpu")
    for batch in batches[:4]:  # stage one shows labelled images alone
        assert (len(batch), batch.num_labeled, batch.propagated) == (20, 20, False)
        assert batch.probabilities is None
        assert torch.equal(batch.certainty, torch.ones(20))
        assert torch.equal(batch.class_weights, torch.ones(10))
    for batch in batches[4:]:
        assert (len(batch), batch.num_labeled, batch.propagated) == (50, 10, True)
        assert torch.equal(batch.certainty[:10], torch.ones(10))
        assert (batch.certainty[10:] < 1).any()
        assert batch.class_weights.shape == (10,)
        assert (batch.probabilities is not None) == soft
        if soft:
            assert batch.probabilities.shape == (50, 10)
            reached = batch.labels[10:] >= 0
            assert torch.equal(batch.probabilities[10:].sum(dim=1) > 0.99, reached)


class Counting(Balancer):
    """1, 2, 3, ...: another factor for each class, whatever their sizes."""

    def class_weights(self, counts: Tensor) -> Tensor:
        return torch.arange(1.0, len(counts) + 1)


def test_a_batch_of_stage_two_holds_what_the_last_refresh_found(tmp_path: Path) -> None:
    balancers.register("counting")(Counting)
    try:
        run(load_recipe("digits", [*TINY, "balancer=counting"]), tmp_path / "run", device="cpu")
    finally:
        balancers.unregister("counting")
    assert len(refreshes) == 2
    for i, batch in enumerate(batches[4:]):
        last = refreshes[i // STEPS_OF_STAGE_TWO]
        assert batch.class_weights.tolist() == list(range(1, 11))
        assert torch.equal(batch.labels, last.labels[batch.index])
        assert torch.equal(batch.certainty, last.certainty[batch.index])


def test_labels_are_refreshed_as_often_as_asked_for(tmp_path: Path) -> None:
    settings = [
        "training.stage_one_epochs=0", "training.stage_two_epochs=5", "training.stage_two_steps=1",
        "pseudo_labels.refresh_epochs=2",
    ]  # fmt: skip
    run(load_recipe("digits", [*TINY, *settings]), tmp_path / "run", device="cpu")
    refreshed = [calls[i + 1] for i, call in enumerate(calls) if call[0] == "after_refresh"]
    assert refreshed == [("begin_epoch", 0), ("begin_epoch", 2), ("begin_epoch", 4)]


def test_epochs_are_measured_as_often_as_asked_for_and_at_the_end_of_a_stage(
    tmp_path: Path,
) -> None:
    settings = [
        "training.stage_one_epochs=3", "training.stage_two_epochs=5", "training.stage_two_steps=1",
        "training.evaluate_every=2",
    ]  # fmt: skip
    run(load_recipe("digits", [*TINY, *settings]), tmp_path / "run", device="cpu")
    lines = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    measured = [line["epoch"] for line in lines if "test_error" in line]
    assert measured == [1, 2, 1, 3, 4]


def test_method_and_schedule_see_the_epoch_in_fractions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    real = Learner.step

    def step(learner: Learner, *arguments: Any) -> dict[str, Tensor]:
        losses = real(learner, *arguments)
        rates.append(learner.learning_rate)
        return losses

    monkeypatch.setattr(Learner, "step", step)
    settings = ["optimizer.learning_rate=0.1", "schedule.zero_epoch=3"]
    run(load_recipe("digits", [*TINY, *settings]), tmp_path / "run", device="cpu")
    expected = [e + i / n for n in (2, STEPS_OF_STAGE_TWO) for e in range(2) for i in range(n)]
    assert epochs == pytest.approx(expected)
    assert rates == pytest.approx([0.05 * (1 + math.cos(math.pi * e / 3)) for e in expected])
