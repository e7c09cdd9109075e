"""Schedules against the published formulas and torch's own."""

from __future__ import annotations

import math

import pytest
import torch

from dlp_plugins.registry import schedules

EPOCHS = 20


@pytest.mark.parametrize("name", schedules.names())
def test_factors_are_finite_and_never_negative(name):
    for warmup in (0.0, 3.0):
        schedule = schedules.build(name, warmup_epochs=warmup)
        factors = [schedule(e / 10, EPOCHS) for e in range(10 * EPOCHS + 1)]
        assert all(0 <= f <= 1 + 1e-12 and math.isfinite(f) for f in factors)


def test_warm_up_rises_in_a_line_and_then_leaves_the_schedule_alone():
    plain, warmed = schedules.build("cosine"), schedules.build("cosine", warmup_epochs=4.0)
    assert warmed(0, EPOCHS) == 0
    assert warmed(1, EPOCHS) == pytest.approx(plain(1, EPOCHS) / 4)
    assert warmed(4, EPOCHS) == plain(4, EPOCHS)


def test_cosine_ends_where_the_papers_does():
    papers = (1 + math.cos(math.pi * 180 / 210)) / 2
    assert schedules.build("cosine")(180, 180) == pytest.approx(papers)
    assert schedules.build("cosine", zero_epoch=210.0)(180, 180) == pytest.approx(papers)
    assert schedules.build("cosine", zero_epoch=10.0)(15, EPOCHS) == 0


def test_fixmatch_ends_at_0195_of_the_base():
    assert schedules.build("fixmatch")(EPOCHS, EPOCHS) == pytest.approx(0.195, abs=5e-4)
    assert schedules.build("fixmatch")(5, EPOCHS) == pytest.approx(math.cos(7 * math.pi / 64))


def test_one_cycle_is_torchs():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    steps = 101  # torch counts steps 0..100, and so its rise ends at step 0.3 * 101 - 1
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=steps)
    rise = (0.3 * steps - 1) / (steps - 1)
    ours = schedules.build("one_cycle", rise=rise)
    for step in range(steps):
        assert ours(step, steps - 1) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-6)
        optimizer.step()
        if step + 1 < steps:
            theirs.step()
