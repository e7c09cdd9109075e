"""The averaged network."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from steps import AUGMENT, EXAMPLES, TOTAL_STEPS, begin, build, build_network, make_batch, make_step

WITH_TEACHER = ["mean_teacher", "ict", "fixmatch"]


@pytest.mark.parametrize("name", WITH_TEACHER)
def test_teacher_is_the_average_of_the_students_past(name: str) -> None:
    method = build(name, ema_decay=0.8)
    student = build_network(method).double()
    method.begin_stage(student, EXAMPLES, TOTAL_STEPS)
    weight = student.head.weight
    expected = weight.detach().clone().numpy()
    past = [expected]
    for number in range(8):
        torch.manual_seed(number)
        with torch.no_grad():
            weight.add_(torch.randn_like(weight))
        past.append(weight.detach().clone().numpy())
        method.after_step(student, number)
        decay = min(1 - 1 / (number + 2), 0.8)
        expected = decay * expected + (1 - decay) * past[-1]
        assert method.teacher.head.weight.numpy() == pytest.approx(expected, rel=1e-9, abs=1e-12)
        if decay < 0.8:  # the plain mean so far
            mean = np.mean(past, axis=0)
            assert method.teacher.head.weight.numpy() == pytest.approx(mean, rel=1e-9, abs=1e-12)
    assert decay == 0.8


@pytest.mark.parametrize("name", WITH_TEACHER)
def test_of_a_weight_normalised_head_length_and_direction_are_averaged(name: str) -> None:
    method = build(name, ema_decay=0.25)
    student = build_network(method, weight_norm_heads="both")
    method.begin_stage(student, EXAMPLES, TOTAL_STEPS)
    head, average = (
        student.head.parametrizations.weight,
        method.teacher.head.parametrizations.weight,
    )
    old = [p.detach().clone().numpy() for p in (head.original0, head.original1)]
    with torch.no_grad():
        for p in (head.original0, head.original1):
            p.add_(torch.randn_like(p))
    new = [p.detach().numpy() for p in (head.original0, head.original1)]
    method.after_step(student, 100)
    length, direction = (0.25 * a + 0.75 * b for a, b in zip(old, new, strict=True))
    assert average.original0.numpy() == pytest.approx(length, rel=1e-5)
    assert average.original1.numpy() == pytest.approx(direction, rel=1e-5)
    expected = length * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    assert method.teacher.head.weight.detach().numpy() == pytest.approx(expected, rel=1e-5)
    assert student.head.parametrizations.weight.original0.data_ptr() != average.original0.data_ptr()
    saved = method.state()
    again = build(name)
    again.begin_stage(student, EXAMPLES, TOTAL_STEPS)
    again.load_state(saved)
    assert torch.equal(again.teacher.head.weight, method.teacher.head.weight)


@pytest.mark.parametrize("name", ["mean_teacher", "ict"])
def test_teacher_gathers_its_own_batch_norm_statistics(name: str) -> None:
    method, student = begin(name)
    before = copy.deepcopy(dict(method.teacher.named_buffers()))
    student(AUGMENT.plain(make_batch().images))
    method.after_step(student, 100)
    assert all(torch.equal(v, before[k]) for k, v in method.teacher.named_buffers())
    method.losses(make_step(student, make_batch()))
    after, own = dict(method.teacher.named_buffers()), dict(student.named_buffers())
    for key in (k for k in after if k.endswith("running_var")):
        assert not torch.equal(after[key], before[key])
        assert not torch.equal(after[key], own[key])


def test_fixmatchs_teacher_averages_parameters_and_takes_the_students_statistics() -> None:
    method, student = begin("fixmatch")
    method.losses(make_step(student, make_batch()))
    own = dict(student.named_buffers())
    assert any(not torch.equal(v, own[k]) for k, v in method.teacher.named_buffers())
    method.after_step(student, 100)
    for key, value in method.teacher.named_buffers():
        assert torch.equal(value, own[key]), key
    assert not torch.equal(method.teacher.head.weight, student.head.weight)
