"""The whole loss of a batch against the equation of each method's paper, in float64."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from steps import (
    AUGMENT,
    CLASSES,
    EXAMPLES,
    TOTAL_STEPS,
    Recorded,
    begin,
    build,
    build_network,
    label_losses,
    label_targets,
    make_batch,
    make_step,
    propagated,
    softmax,
)
from torch import Tensor, nn

from dlp_plugins.consistency import Batch, Step, supervised_loss
from dlp_plugins.consistency._terms import draw_mix
from dlp_plugins.network import Network
from dlp_plugins.schedules._ramp_up import ramp_up

LABELED, UNLABELED = 4, 6
STAGES = {
    "one": make_batch(LABELED, UNLABELED),
    "two": propagated(make_batch(LABELED, UNLABELED)),
    "two, soft": propagated(make_batch(LABELED, UNLABELED), soft=True),
}


@pytest.fixture(params=STAGES)
def batch(request: pytest.FixtureRequest) -> Batch:
    return STAGES[request.param]


def carry_labels(batch: Batch) -> int:
    """Images whose labels the papers' formulas count: the labelled, or in stage two all."""
    return LABELED + UNLABELED if batch.propagated else LABELED


def test_ramp_up_values() -> None:
    assert ramp_up(0, 5) == pytest.approx(math.exp(-5))
    assert ramp_up(2.5, 5) == pytest.approx(math.exp(-1.25))
    assert ramp_up(5, 5) == ramp_up(180, 5) == ramp_up(0, 0) == 1.0


def test_supervised_loss(batch: Batch) -> None:
    logits = torch.randn(10, CLASSES, dtype=torch.float64)
    each = label_losses(softmax(logits), batch)
    assert (each[:LABELED] > 0).all()
    assert (each[LABELED:-1] > 0).all() == batch.propagated
    assert each[-1] == 0
    loss = supervised_loss(logits, batch)
    assert float(loss) == pytest.approx(each.sum() / 10, rel=1e-6)
    loss = supervised_loss(logits, batch, mean="labeled")
    assert float(loss) == pytest.approx(each.sum() / carry_labels(batch), rel=1e-6)


def test_hard_labels_give_torchs_cross_entropy_with_the_papers_weights() -> None:
    batch = STAGES["two"]
    logits = torch.randn(10, CLASSES)
    weights = batch.certainty * batch.class_weights[batch.labels]
    losses = nn.functional.cross_entropy(logits, batch.labels, ignore_index=-1, reduction="none")
    assert torch.allclose(supervised_loss(logits, batch), (losses * weights).mean())


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("distance", ["mse", "kl"])
def test_mean_teacher(batch: Batch, heads: int, distance: str) -> None:
    r = Recorded("mean_teacher", batch=batch, heads=heads, distance=distance, epoch=2.0)
    ((teacher_view, teacher),) = r.by("teacher")
    ((student_view, student),) = r.by("student")
    assert not torch.equal(teacher_view, student_view)  # two augmentations
    assert len(teacher_view) == 10  # of all images
    p, q = softmax(student.consistency_logits), softmax(teacher.logits)
    if distance == "mse":
        apart = ((p - q) ** 2).sum(axis=1) / CLASSES
    else:
        apart = (q * np.log(q / p)).sum(axis=1)
    ramp = math.exp(-5 * (1 - 2 / 5) ** 2)
    expected = label_losses(softmax(student.logits), batch).mean() + 100 * ramp * apart.mean()
    assert ("logit_distance" in r.terms) == (heads == 2)
    if heads == 2:
        expected += 0.01 * (student.logits - student.consistency_logits).square().mean().item()
    assert r.total == pytest.approx(expected, rel=1e-6)


def test_pi_model(batch: Batch) -> None:
    r = Recorded("pi_model", batch=batch, epoch=20.0)
    (a, first), (b, second) = r.by("student")
    assert not torch.equal(a, b)
    assert len(a) == len(b) == 10
    weight = 100 * carry_labels(batch) / 10 * math.exp(-5 * 0.75**2)
    apart = (softmax(first.logits) - softmax(second.logits)) ** 2
    expected = label_losses(softmax(first.logits), batch).mean() + weight * apart.mean()
    assert r.total == pytest.approx(expected, rel=1e-6)


def test_temporal_ensembling() -> None:
    """By hand: 5 is twice in a batch, 7 is first seen in the second epoch, 1 not in the third."""
    method = build("temporal_ensembling", ramp_up_epochs=0.0)
    student = build_network(method)
    method.begin_stage(student, EXAMPLES, TOTAL_STEPS)
    ensemble: dict[int, np.ndarray] = {}
    count: dict[int, int] = {}
    for epoch, index in enumerate([[5, 1, 5], [7, 5, 1], [5, 7, 2], [1, 2, 7]]):
        batch = replace(make_batch(1, 2, seed=epoch), index=torch.tensor(index))
        method.begin_epoch(student, epoch)
        step = make_step(student, batch, number=epoch, epoch=epoch + 0.5)
        terms = method.losses(step)
        z = softmax(step.output.logits)
        apart = 0.0
        for row, i in enumerate(index):
            if i in count:
                apart += ((z[row] - ensemble[i] / (1 - 0.6 ** count[i])) ** 2).sum()
        expected = label_losses(z, batch).mean() + 30 * (1 / 3) * apart / (3 * CLASSES)
        total = sum(float(t.detach()) for t in terms.values())
        assert total == pytest.approx(expected, rel=1e-5)
        for i in set(index):
            ensemble[i] = 0.6 * ensemble.get(i, 0.0) + 0.4 * z[index.index(i)]
            count[i] = count.get(i, 0) + 1
    assert apart > 0


def test_temporal_ensembling_averages_once_an_epoch() -> None:
    method, student = begin("temporal_ensembling")
    method.begin_epoch(student, 0)
    for epoch in (0.0, 0.3, 0.6):
        method.losses(make_step(student, make_batch(), epoch=epoch))
    assert method.state()["count"].sum() == 0
    method.begin_epoch(student, 1)
    assert method.state()["count"].sum() == len(make_batch())


class Linear(nn.Module):
    """Pixels as features: then the KL divergence has a known Hessian."""

    num_features = 64

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


@pytest.mark.parametrize("power_iterations", [1, 60])
def test_vat(batch: Batch, power_iterations: int) -> None:
    weight = 0.7
    method = build("vat", weight=weight, epsilon=0.5, xi=1e-6, power_iterations=power_iterations)
    torch.manual_seed(0)
    student = Network(Linear(), CLASSES, normalize_descriptor=False).double()
    views: list[Tensor] = []
    student.register_forward_pre_hook(lambda m, inputs: views.append(inputs[0].detach()))
    step = Step(student, batch, lambda x: AUGMENT.plain(x).double(), AUGMENT.strong, 0, 0.0, 1)
    torch.manual_seed(5)
    total = sum(float(t.detach()) for t in method.losses(step).values())
    clean, perturbed = views[0], views[-1]
    torch.manual_seed(6)  # the method's own seed: the next after the step's
    noise = torch.randn(10, 64, dtype=torch.float64).numpy()

    W = student.head.weight.detach().numpy()
    p, q = softmax(student(clean).logits), softmax(student(perturbed).logits)
    apart = (p * np.log(p / q)).sum(axis=1).mean()  # of all images, labelled or not
    labels = label_losses(p, batch).sum() / carry_labels(batch)
    assert total == pytest.approx(labels + weight * apart, rel=1e-6)
    r = (perturbed - clean).flatten(1).numpy()
    assert np.linalg.norm(r, axis=1) == pytest.approx(0.5)
    for i in range(10):
        hessian = W.T @ (np.diag(p[i]) - np.outer(p[i], p[i])) @ W
        if power_iterations == 1:
            direction = hessian @ noise[i]
            assert r[i] @ direction / np.linalg.norm(direction) / 0.5 == pytest.approx(1, abs=1e-4)
        else:
            largest = np.linalg.eigh(hessian)[1][:, -1]
            assert abs(r[i] @ largest) / 0.5 == pytest.approx(1, abs=1e-2)


def test_vat_finds_a_direction_for_vectors_too() -> None:
    method = build("vat", epsilon=0.5)
    student = Network(Linear(), CLASSES, normalize_descriptor=False)
    step = Step(
        student, make_batch(), lambda x: AUGMENT.plain(x).flatten(1), AUGMENT.strong, 0, 0, 1
    )
    assert method.losses(step)["consistency"] > 0


def test_vat_keeps_running_statistics_of_the_clean_pass_alone() -> None:
    method, student = begin("vat")
    twin = copy.deepcopy(student)
    step = make_step(student, make_batch())
    method.losses(step)
    twin(step.view)
    for (key, actual), expected in zip(student.named_buffers(), twin.buffers(), strict=True):
        assert torch.equal(actual, expected), key
    step = make_step(student, make_batch())
    before = copy.deepcopy(dict(student.named_buffers()))
    student(step.view)  # tracking is on again
    assert not all(torch.equal(v, before[k]) for k, v in student.named_buffers())


def test_vat_draws_the_same_dropout_in_every_pass() -> None:
    method = build("vat", epsilon=1e-6)
    student = build_network(method, dropout=0.5)
    term = method.losses(make_step(student, make_batch()))["consistency"]
    assert abs(float(term.detach())) < 1e-6  # another mask moves it by far more


def test_vat_draws_other_dropout_in_the_next_step() -> None:
    method = build("vat")
    student = build_network(method, dropout=0.5)
    images = AUGMENT.plain(make_batch().images)
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        step = Step(student, make_batch(), lambda x: images, AUGMENT.strong, 0, 0.0, 1)
        method.losses(step)
        found.append(step.output.logits)
    assert not torch.allclose(*found)


@pytest.mark.parametrize("quantile", [0.0, 0.5, 1.0])
def test_fixmatch(batch: Batch, quantile: float) -> None:
    weak_logits = Recorded("fixmatch", batch=batch).by("student")[0][1].logits
    confidence = softmax(weak_logits)[LABELED:].max(axis=1)
    threshold = float(np.quantile(confidence, quantile)) if quantile < 1 else 1.0
    r = Recorded("fixmatch", batch=batch, threshold=threshold, weight=0.7)
    (_, weak), (strong_view, strong) = r.by("student")
    assert r.kinds == ["weak", "strong"]
    assert torch.equal(strong_view, r.views[1])
    q, p = softmax(weak.logits), softmax(strong.logits)
    assert len(p) == UNLABELED  # those without a label of their own
    pseudo = 0.0
    for i in range(UNLABELED):
        if q[LABELED + i].max() >= threshold:
            pseudo -= math.log(p[i, q[LABELED + i].argmax()])
    labels = label_losses(q, batch).sum() / carry_labels(batch)
    assert r.total == pytest.approx(labels + 0.7 * pseudo / UNLABELED, rel=1e-5)
    assert r.by("teacher") == []


def replay(*counts: int, alpha: float) -> list[tuple[float, list[int]]]:
    """The shares and partners that follow one weak view under seed 5."""
    torch.manual_seed(5)
    AUGMENT.weak(make_batch().images)
    draws = [draw_mix(count, alpha, torch.device("cpu")) for count in counts]
    return [(float(share), partner.tolist()) for share, partner in draws]


def mixed_labels(r: Recorded, images: Tensor, output: object, share: float, partner: list[int]):
    """[m] share L(x~_i, y_i) + (1 - share) L(x~_i, y_j) of x~_i = share x_i + (1 - share) x_j."""
    targets, log_p, view = label_targets(r.batch), np.log(softmax(output.logits)), r.views[0]
    found = np.zeros(len(partner))
    for i, j in enumerate(partner):
        assert torch.allclose(images[i], share * view[i] + (1 - share) * view[j], atol=1e-6)
        found[i] -= share * (targets[i] * log_p[i]).sum()
        found[i] -= (1 - share) * (targets[j] * log_p[i]).sum()
    return found


def test_mixup(batch: Batch) -> None:
    r = Recorded("mixup", batch=batch, alpha=0.7)
    ((mixed, output),) = r.by("student")  # the unmixed view is never shown
    ((share, partner),) = replay(10, alpha=0.7)
    assert 0 < share < 1
    expected = mixed_labels(r, mixed, output, share, partner).mean()
    assert r.terms == {"supervised": pytest.approx(expected, rel=1e-5)}


@pytest.mark.parametrize("mix_labeled", [True, False])
def test_ict(batch: Batch, mix_labeled: bool) -> None:
    r = Recorded("ict", batch=batch, alpha=0.7, epoch=50.0, mix_labeled=mix_labeled)
    ((seen, teacher),) = r.by("teacher")
    (labeled_view, labeled), (mixed, student) = r.by("student")
    assert torch.equal(seen, r.views[0][LABELED:])  # the unlabelled only
    m = carry_labels(batch)
    if mix_labeled:
        own, (share, partner) = replay(m, UNLABELED, alpha=0.7)
        labels = mixed_labels(r, labeled_view, labeled, *own).mean()
    else:
        ((share, partner),) = replay(UNLABELED, alpha=0.7)
        labels = label_losses(softmax(labeled.logits), batch).sum() / m
    q, p, apart = softmax(teacher.logits), softmax(student.logits), 0.0
    for i, j in enumerate(partner):
        x = share * r.views[0][LABELED + i] + (1 - share) * r.views[0][LABELED + j]
        assert torch.allclose(mixed[i], x, atol=1e-6)
        apart += ((p[i] - share * q[i] - (1 - share) * q[j]) ** 2).sum()
    weight = 100 * math.exp(-5 * 0.5**2)
    expected = labels + weight * apart / (UNLABELED * CLASSES)
    assert r.total == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("alpha", [0.1, 1.0, 8.0])
def test_the_share_of_a_mix_has_the_betas_mean_and_variance(alpha: float) -> None:
    torch.manual_seed(0)
    draws = [draw_mix(3, alpha, torch.device("cpu")) for _ in range(2000)]
    shares = torch.stack([share for share, _ in draws])
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(shares.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)
    assert all(sorted(partner.tolist()) == [0, 1, 2] for _, partner in draws[:20])


def test_the_share_of_a_mix_is_a_number_for_a_tiny_alpha() -> None:
    torch.manual_seed(0)
    shares = torch.stack([draw_mix(1, 0.01, torch.device("cpu"))[0] for _ in range(500)])
    assert shares.isfinite().all()
    assert ((shares < 1e-3) | (shares > 1 - 1e-3)).float().mean() > 0.8
