"""Consistency methods: every one against the contract."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from steps import (
    EXAMPLES,
    NAMES,
    TOTAL_STEPS,
    begin,
    build,
    build_network,
    make_batch,
    make_step,
    propagated,
)

from dlp_plugins.consistency import Consistency
from dlp_plugins.network import Network
from dlp_plugins.registry import consistency


def test_the_registry_is_not_empty() -> None:
    assert {
        "none", "mean_teacher", "pi_model", "temporal_ensembling", "vat", "fixmatch", "mixup",
        "ict",
    } <= set(NAMES)  # fmt: skip


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    if missing := consistency.get(request.param).missing():
        pytest.skip(f"needs {missing}")
    return request.param


def train(method: Consistency, student: Network, first: int, last: int) -> None:
    """Steps first..last - 1 of a run with three steps an epoch, each seeded by its number."""
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05)
    for number in range(first, last):
        torch.manual_seed(number)
        if number % 3 == 0:
            method.begin_epoch(student, number // 3)
        step = make_step(student, make_batch(seed=number), number, number / 3)
        loss = torch.stack(list(method.losses(step).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step(student, number)


def test_the_gradient_reaches_the_student_and_not_the_teacher(name: str) -> None:
    method, student = begin(name)
    if name == "temporal_ensembling":  # has targets from the second epoch on
        method.losses(make_step(student, make_batch(), number=0, epoch=0.0))
        method.begin_epoch(student, 1)
    terms = method.losses(make_step(student, make_batch()))
    # The consistency alone: the labels' gradient would hide that it has none.
    terms.get("consistency", terms["supervised"]).backward()
    for key, p in student.backbone.named_parameters():
        assert p.grad is not None, key
        assert p.grad.abs().max() > 0, key
    if method.teacher is not None:
        assert not any(p.requires_grad or p.grad is not None for p in method.teacher.parameters())


@pytest.mark.parametrize("stage", ["one", "two"])
@pytest.mark.parametrize(("labeled", "unlabeled"), [(10, 0), (0, 10), (1, 0), (0, 1)], ids=str)
def test_any_batch_gives_finite_terms_of_the_same_names(
    name: str, labeled: int, unlabeled: int, stage: str
) -> None:
    method, student = begin(name)
    expected = method.losses(make_step(student, make_batch())).keys()
    batch = make_batch(labeled, unlabeled)
    batch = propagated(batch) if stage == "two" else batch
    terms = method.losses(make_step(student, batch))
    assert terms.keys() == expected
    torch.stack(list(terms.values())).sum().backward()
    gradients = [p.grad for p in student.parameters() if p.grad is not None]
    networks = [student] if method.teacher is None else [student, method.teacher]
    statistics = [b for network in networks for b in network.buffers()]
    for value in [*terms.values(), *gradients, *statistics]:
        assert torch.isfinite(value).all()


def test_a_label_of_minus_one_adds_nothing(name: str) -> None:
    method, student = begin(name)
    batch = make_batch()
    unknown = replace(batch, labels=torch.full((10,), -1), certainty=torch.ones(10))
    supervised = method.losses(make_step(student, unknown))["supervised"]
    assert float(supervised.detach()) == 0.0


def test_bfloat16_autocast(name: str) -> None:
    method, student = begin(name)
    torch.manual_seed(1)
    exact = method.losses(make_step(student, make_batch()))
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = method.losses(make_step(student, make_batch()))
    for key, value in terms.items():
        assert float(value.detach()) == pytest.approx(float(exact[key].detach()), rel=0.1, abs=1e-3)
    torch.stack([t.float() for t in terms.values()]).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in student.parameters() if p.grad is not None)


def test_a_resumed_run_is_the_same_bit_for_bit(name: str) -> None:
    method = build(name)
    student = build_network(method, dropout=0.3)
    method.begin_stage(student, EXAMPLES, TOTAL_STEPS)
    train(method, student, 0, 5)
    saved = copy.deepcopy((student.state_dict(), method.state()))
    train(method, student, 5, 11)

    resumed = build(name)
    other = build_network(resumed, seed=7, dropout=0.3)
    other.load_state_dict(saved[0])
    resumed.begin_stage(other, EXAMPLES, TOTAL_STEPS)
    resumed.load_state(saved[1])
    train(resumed, other, 5, 11)

    assert all(torch.isfinite(p).all() for p in student.parameters())
    expected = {**student.state_dict(), **method.state()}
    actual = {**other.state_dict(), **resumed.state()}
    assert actual.keys() == expected.keys()
    for key in expected:
        assert torch.equal(actual[key], expected[key]), key


def test_a_stage_starts_afresh(name: str) -> None:
    method = build(name)
    student = build_network(method)
    method.begin_stage(student, EXAMPLES, TOTAL_STEPS)
    train(method, student, 0, 4)
    method.begin_stage(student, EXAMPLES, TOTAL_STEPS)
    fresh = build(name)
    fresh.begin_stage(student, EXAMPLES, TOTAL_STEPS)
    assert all(torch.equal(v, fresh.state()[k]) for k, v in method.state().items())
    if method.teacher is not None:
        assert all(
            torch.equal(v, student.state_dict()[k]) for k, v in method.teacher.state_dict().items()
        )
        assert method.teacher is not student


def test_probabilities_of_one_are_hard_labels(name: str) -> None:
    """The same term from labels and from their one-hot probabilities, other rows not read."""
    method, student = begin(name)
    batch = propagated(make_batch())
    p = (batch.labels[:, None] == torch.arange(3)).float()
    p[: batch.num_labeled] = 7.0
    found = []
    for given in (batch, replace(batch, probabilities=p)):
        torch.manual_seed(2)
        found.append(method.losses(make_step(student, given))["supervised"].detach())
    assert torch.equal(*found)
    assert found[0] > 0
