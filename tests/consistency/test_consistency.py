"""Consistency methods: every one against the contract, each against its equation in float64."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dlp_plugins.augmentations.image import ImageAugmentation
from dlp_plugins.consistency import Batch, Consistency, Step, weighted_cross_entropy
from dlp_plugins.network import Network
from dlp_plugins.recipe.check import load_recipe
from dlp_plugins.registry import backbones, consistency
from dlp_plugins.schedules._ramp_up import ramp_up
from dlp_plugins.training.run import run

CLASSES, EXAMPLES = 3, 40
# `usb` is a family of another toolkit's methods, tested in tests/usb.
NAMES = [name for name in consistency.names() if name != "usb"]
AUGMENT = ImageAugmentation(mean=(0.5,), std=(0.25,), translate=1)


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


def build(name: str, **params: object) -> Consistency:
    # A threshold no prediction misses: an untrained network is never sure.
    defaults = {"fixmatch": {"threshold": 0.0}}.get(name, {})
    return consistency.build(name, num_classes=CLASSES, **{**defaults, **params})


def refuse_empty(module: nn.Module, inputs: tuple[Tensor]) -> None:
    assert len(inputs[0]), "an empty batch, which not every backbone takes"


def build_network(method: Consistency, seed: int = 0, dropout: float = 0.0) -> Network:
    torch.manual_seed(seed)
    backbone = backbones.build("small_cnn", in_channels=1, width=4, blocks=2, dropout=dropout)
    backbone.register_forward_pre_hook(refuse_empty)
    return Network(backbone, CLASSES, method.heads, normalize_descriptor=False).train()


def make_batch(labeled: int = 4, unlabeled: int = 6, seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    count = labeled + unlabeled
    labels = torch.randint(0, CLASSES, (count,), generator=g)
    labels[labeled:] = -1
    return Batch(
        images=torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=g),
        index=torch.randperm(EXAMPLES, generator=g)[:count],
        labels=labels,
        weights=(labels >= 0).float() * (0.5 + torch.rand(count, generator=g)),
        labeled=torch.arange(count) < labeled,
    )


def make_step(student: Network, batch: Batch, number: int = 3, epoch: float = 1.0) -> Step:
    return Step(student, batch, AUGMENT.weak, AUGMENT.strong, number, epoch)


def begin(name: str, **params: object) -> tuple[Consistency, Network]:
    method = build(name, **params)
    student = build_network(method)
    method.begin_stage(student, EXAMPLES)
    if method.teacher is not None:  # as after some training: not the student's twin
        with torch.no_grad():
            for p in method.teacher.parameters():
                p.add_(0.1 * torch.randn_like(p))
    return method, student


def train(method: Consistency, student: Network, first: int, last: int) -> None:
    """Steps first..last - 1 of a run with three steps an epoch, each seeded by its number."""
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05)
    for number in range(first, last):
        torch.manual_seed(number)
        step = make_step(student, make_batch(seed=number), number, number / 3)
        loss = torch.stack(list(method.losses(step).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step(student, number)


# -- the contract, for every method ---------------------------------------------------------------


def test_the_gradient_reaches_the_student_and_not_the_teacher(name: str) -> None:
    method, student = begin(name)
    if name == "temporal_ensembling":  # has targets from the second epoch on
        method.losses(make_step(student, make_batch(), number=0, epoch=0.0))
    terms = method.losses(make_step(student, make_batch()))
    # The consistency alone: the labels' gradient would hide that it has none.
    terms.get("consistency", terms["supervised"]).backward()
    for key, p in student.backbone.named_parameters():
        assert p.grad is not None, key
        assert p.grad.abs().max() > 0, key
    if method.teacher is not None:
        assert not any(p.requires_grad or p.grad is not None for p in method.teacher.parameters())


@pytest.mark.parametrize(("labeled", "unlabeled"), [(10, 0), (0, 10), (1, 0), (0, 1)], ids=str)
def test_any_batch_gives_finite_terms_of_the_same_names(
    name: str, labeled: int, unlabeled: int
) -> None:
    method, student = begin(name)
    expected = method.losses(make_step(student, make_batch())).keys()
    terms = method.losses(make_step(student, make_batch(labeled, unlabeled)))
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
    unknown = Batch(
        batch.images, batch.index, torch.full_like(batch.labels, -1), torch.ones(10), batch.labeled
    )
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
    method.begin_stage(student, EXAMPLES)
    train(method, student, 0, 5)
    saved = copy.deepcopy((student.state_dict(), method.state()))
    train(method, student, 5, 11)

    resumed = build(name)
    other = build_network(resumed, seed=7, dropout=0.3)
    other.load_state_dict(saved[0])
    resumed.begin_stage(other, EXAMPLES)
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
    method.begin_stage(student, EXAMPLES)
    train(method, student, 0, 4)
    method.begin_stage(student, EXAMPLES)
    fresh = build(name)
    fresh.begin_stage(student, EXAMPLES)
    assert all(torch.equal(v, fresh.state()[k]) for k, v in method.state().items())
    if method.teacher is not None:
        assert all(
            torch.equal(v, student.state_dict()[k]) for k, v in method.teacher.state_dict().items()
        )
        assert method.teacher is not student


# -- equations, in float64 ------------------------------------------------------------------------


def softmax(logits: Tensor) -> np.ndarray:
    e = np.exp(logits.detach().double().numpy())
    return e / e.sum(axis=1, keepdims=True)


class Recorded:
    """A float64 step that keeps the views it was asked for and what each network said of them."""

    def __init__(
        self, name: str, *, batch: Batch | None = None, epoch: float = 1.0, **params: object
    ) -> None:
        self.method, self.student = begin(name, **params)
        self.student.double()
        self.said: list[tuple[str, Tensor, object]] = []
        self.student.register_forward_hook(self._hook("student"))
        if self.method.teacher is not None:
            self.method.teacher.double()
            self.method.teacher.register_forward_hook(self._hook("teacher"))
        self.views: list[Tensor] = []
        self.kinds: list[str] = []
        self.batch = batch or make_batch()
        step = Step(self.student, self.batch, self._view("weak"), self._view("strong"), 3, epoch)
        torch.manual_seed(5)
        self.terms = {k: float(v.detach()) for k, v in self.method.losses(step).items()}

    def _hook(self, who: str) -> object:
        def hook(module: nn.Module, inputs: tuple[Tensor], output: object) -> None:
            self.said.append((who, inputs[0].detach(), output))

        return hook

    def _view(self, kind: str) -> object:
        def view(images: Tensor) -> Tensor:
            self.kinds.append(kind)
            self.views.append(getattr(AUGMENT, kind)(images).double())
            return self.views[-1]

        return view

    def by(self, who: str) -> list[tuple[Tensor, object]]:
        return [(x, output) for w, x, output in self.said if w == who]


def test_ramp_up_values() -> None:
    assert ramp_up(0, 5) == pytest.approx(math.exp(-5))
    assert ramp_up(2.5, 5) == pytest.approx(math.exp(-1.25))
    assert ramp_up(5, 5) == ramp_up(180, 5) == ramp_up(0, 0) == 1.0


def test_weighted_cross_entropy() -> None:
    batch, logits = make_batch(), torch.randn(10, CLASSES, dtype=torch.float64)
    p = softmax(logits)
    total = 0.0
    for i in range(4):
        total -= float(batch.weights[i]) * math.log(p[i, int(batch.labels[i])])
    loss = weighted_cross_entropy(logits, batch.labels, batch.weights)
    assert float(loss) == pytest.approx(total / 10, rel=1e-6)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("distance", ["mse", "kl"])
def test_mean_teacher(heads: int, distance: str) -> None:
    r = Recorded("mean_teacher", heads=heads, distance=distance, epoch=2.0)
    ((teacher_view, teacher),) = r.by("teacher")
    ((student_view, student),) = r.by("student")
    assert not torch.equal(teacher_view, student_view)  # two augmentations
    assert len(teacher_view) == len(r.batch)  # of all images
    p, q = softmax(student.consistency_logits), softmax(teacher.logits)
    if distance == "mse":
        expected = ((p - q) ** 2).sum(axis=1) / CLASSES
    else:
        expected = (q * np.log(q / p)).sum(axis=1)
    ramp = math.exp(-5 * (1 - 2 / 5) ** 2)
    assert r.terms["consistency"] == pytest.approx(100 * ramp * expected.mean(), rel=1e-9)
    if heads == 1:
        assert "logit_distance" not in r.terms
        return
    gap = (student.logits - student.consistency_logits).detach().numpy()
    # the class head and the consistency head are tied in float32, as under autocast
    assert r.terms["logit_distance"] == pytest.approx(0.01 * (gap**2).mean(), rel=1e-5)


def test_pi_model() -> None:
    r = Recorded("pi_model", epoch=20.0)
    (a, first), (b, second) = r.by("student")
    assert not torch.equal(a, b)
    assert len(a) == len(b) == len(r.batch)
    expected = (
        50 * math.exp(-5 * 0.75**2) * ((softmax(first.logits) - softmax(second.logits)) ** 2).mean()
    )
    assert r.terms["consistency"] == pytest.approx(expected, rel=1e-9)


def test_temporal_ensembling() -> None:
    """By hand: 5 is twice in a batch, 7 is first seen in the second epoch, 1 not in the third."""
    method = build("temporal_ensembling", ramp_up_epochs=0.0, weight=1.0)
    student = build_network(method)
    method.begin_stage(student, EXAMPLES)
    ensemble: dict[int, np.ndarray] = {}
    count: dict[int, int] = {}
    for epoch, index in enumerate([[5, 1, 5], [7, 5, 1], [5, 7, 2], [1, 2, 7]]):
        batch = make_batch(1, 2, seed=epoch)
        batch = Batch(batch.images, torch.tensor(index), batch.labels, batch.weights, batch.labeled)
        step = make_step(student, batch, number=epoch, epoch=epoch + 0.5)
        term = float(method.losses(step)["consistency"].detach())
        z = softmax(step.output.logits)
        expected = 0.0
        for row, i in enumerate(index):
            if i in count:
                expected += ((z[row] - ensemble[i] / (1 - 0.6 ** count[i])) ** 2).sum()
        assert term == pytest.approx(expected / (3 * CLASSES), rel=1e-5, abs=1e-12)
        for i in set(index):
            ensemble[i] = 0.6 * ensemble.get(i, 0.0) + 0.4 * z[index.index(i)]
            count[i] = count.get(i, 0) + 1
    assert term > 0


def test_temporal_ensembling_averages_once_an_epoch() -> None:
    method, student = begin("temporal_ensembling")
    for epoch in (0.0, 0.3, 0.6):
        method.losses(make_step(student, make_batch(), epoch=epoch))
    assert method.state()["count"].sum() == 0
    method.losses(make_step(student, make_batch(), epoch=1.0))
    assert method.state()["count"].sum() == len(make_batch())


class Linear(nn.Module):
    """Pixels as features: then the KL divergence has a known Hessian."""

    num_features = 64

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


@pytest.mark.parametrize("power_iterations", [1, 60])
def test_vat(power_iterations: int) -> None:
    method = build("vat", epsilon=0.5, xi=1e-6, power_iterations=power_iterations)
    torch.manual_seed(0)
    student = Network(Linear(), CLASSES, normalize_descriptor=False).double()
    batch = make_batch()
    views: list[Tensor] = []
    student.register_forward_pre_hook(lambda m, inputs: views.append(inputs[0].detach()))
    step = Step(student, batch, lambda x: AUGMENT.plain(x).double(), AUGMENT.strong, 0, 0.0)
    torch.manual_seed(5)
    term = float(method.losses(step)["consistency"].detach())
    clean, perturbed = views[0], views[-1]
    torch.manual_seed(5)
    noise = torch.randn(len(batch), 64, dtype=torch.float64).numpy()

    W = student.head.weight.detach().numpy()
    p, q = softmax(student(clean).logits), softmax(student(perturbed).logits)
    assert term == pytest.approx((p * np.log(p / q)).sum(axis=1).mean(), rel=1e-9)
    r = (perturbed - clean).flatten(1).numpy()
    assert np.linalg.norm(r, axis=1) == pytest.approx(0.5)
    for i in range(len(batch)):
        hessian = W.T @ (np.diag(p[i]) - np.outer(p[i], p[i])) @ W
        if power_iterations == 1:
            direction = hessian @ noise[i]
            assert r[i] @ direction / np.linalg.norm(direction) / 0.5 == pytest.approx(1, abs=1e-4)
        else:
            largest = np.linalg.eigh(hessian)[1][:, -1]
            assert abs(r[i] @ largest) / 0.5 == pytest.approx(1, abs=1e-2)


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


@pytest.mark.parametrize("quantile", [0.0, 0.5, 1.0])
def test_fixmatch(quantile: float) -> None:
    confidence = softmax(Recorded("fixmatch").by("student")[0][1].logits)[4:].max(axis=1)
    threshold = float(np.quantile(confidence, quantile)) if quantile < 1 else 1.0
    r = Recorded("fixmatch", threshold=threshold)
    (_, weak), (strong_view, strong) = r.by("student")
    assert r.kinds == ["weak", "strong"]
    assert torch.equal(strong_view, r.views[1])
    q, p = softmax(weak.logits)[4:], softmax(strong.logits)
    assert len(p) == 6  # the unlabelled only
    expected = 0.0
    for i in range(6):
        if q[i].max() >= threshold:
            expected -= math.log(p[i, q[i].argmax()])
    assert r.terms["consistency"] == pytest.approx(expected / 6, rel=1e-5, abs=1e-12)
    assert r.by("teacher") == []


def replay_mix(count: int, alpha: float, views: int) -> tuple[float, list[int]]:
    """The draws of lambda and partners that follow `views` weak views under seed 5."""
    torch.manual_seed(5)
    for _ in range(views):
        AUGMENT.weak(make_batch().images)
    share = float(torch.distributions.Beta(torch.tensor(alpha), torch.tensor(alpha)).sample())
    return share, torch.randperm(count).tolist()


def test_mixup() -> None:
    r = Recorded("mixup", alpha=0.7)
    ((mixed, output),) = r.by("student")  # the unmixed view is never shown
    share, partner = replay_mix(10, 0.7, 1)
    assert 0 < share < 1
    p, b, expected = softmax(output.logits), r.batch, 0.0
    for i, j in enumerate(partner):
        x = share * r.views[0][i] + (1 - share) * r.views[0][j]
        assert torch.allclose(mixed[i], x, atol=1e-6)
        for who, part in ((i, share), (j, 1 - share)):
            if b.labels[who] >= 0:
                expected -= part * float(b.weights[who]) * math.log(p[i, int(b.labels[who])])
    assert r.terms == {"supervised": pytest.approx(expected / 10, rel=1e-5)}


def test_ict() -> None:
    r = Recorded("ict", alpha=0.7, epoch=50.0)
    ((seen, teacher),) = r.by("teacher")
    (_, _), (mixed, student) = r.by("student")
    assert torch.equal(seen, r.views[0][4:])  # the unlabelled only
    share, partner = replay_mix(6, 0.7, 1)
    q, p, expected = softmax(teacher.logits), softmax(student.logits), 0.0
    for i, j in enumerate(partner):
        x = share * r.views[0][4 + i] + (1 - share) * r.views[0][4 + j]
        assert torch.allclose(mixed[i], x, atol=1e-6)
        expected += ((p[i] - share * q[i] - (1 - share) * q[j]) ** 2).sum()
    ramp = math.exp(-5 * 0.5**2)
    assert r.terms["consistency"] == pytest.approx(100 * ramp * expected / (6 * CLASSES), rel=1e-5)


# -- the averaged network -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mean_teacher", "ict", "fixmatch"])
def test_teacher_is_the_average_of_the_students_past(name: str) -> None:
    method = build(name, ema_decay=0.8)
    student = build_network(method).double()
    method.begin_stage(student, EXAMPLES)
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


def test_fixmatch_averages_batch_norm_statistics_too() -> None:
    method = build("fixmatch")
    student = build_network(method)
    method.begin_stage(student, EXAMPLES)
    method.losses(make_step(student, make_batch()))
    before = copy.deepcopy(dict(method.teacher.named_buffers()))
    method.after_step(student, 0)
    for key, value in method.teacher.named_buffers():
        if key.endswith("running_mean"):
            expected = (before[key] + dict(student.named_buffers())[key]) / 2
            assert torch.allclose(value, expected)


# -- on digits ------------------------------------------------------------------------------------

# Stage one alone, 30 labels. The descriptor is not normalised: that bounds the logits, and no
# prediction would reach FixMatch's threshold.
DIGITS = [
    "dataset.num_labeled=30", "backbone.width=16", "backbone.normalize_descriptor=false",
    "augmentation.rotate=15.0", "augmentation.strong_magnitude=0.3", "augmentation.cutout=0.25",
    "training.stage_one_steps=20", "training.stage_two_epochs=0", "training.evaluate_every=1000",
]  # fmt: skip
ON_DIGITS = {  # the papers' ramp-ups are longer than these 20 epochs
    "mean_teacher": ["weight=30.0"],
    "pi_model": ["ramp_up_epochs=5.0"],
    "temporal_ensembling": ["weight=30.0", "ramp_up_epochs=10.0"],
    "vat": ["epsilon=1.0"],
    "fixmatch": ["ema_decay=0.97"],
    "mixup": [],
    "ict": ["weight=30.0", "ramp_up_epochs=5.0", "ema_decay=0.97"],
}


def errors_on_digits(name: str, folder: Path) -> list[float]:
    """The student's test error in percent, for each of three seeds."""
    own = [f"consistency.{setting}" for setting in ON_DIGITS.get(name, [])]
    recipes = [
        load_recipe("digits", [*DIGITS, f"consistency.name={name}", *own, f"seed={seed}"])
        for seed in range(3)
    ]
    return [
        run(recipe, folder / str(recipe.seed), device="cpu")["test_error"] for recipe in recipes
    ]


@pytest.fixture(scope="module")
def errors_without(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    return errors_on_digits("none", tmp_path_factory.mktemp("none"))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(NAMES) - {"none"}))
def test_lowers_the_error_on_digits(name: str, errors_without: list[float], tmp_path: Path) -> None:
    """The mean over three seeds, student against student, at settings that suit digits."""
    errors = errors_on_digits(name, tmp_path)
    print(f"{name}: {errors}, none: {errors_without}")
    assert np.mean(errors) < np.mean(errors_without)
