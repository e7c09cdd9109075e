"""USB's algorithms as this project's consistency methods, each driven on real digits."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
import usb_digits  # noqa: F401 - one thread
from semilearn.core.utils import ALGORITHMS

from dlp_plugins import registry
from dlp_plugins.augmentations.image import ImageAugmentation
from dlp_plugins.consistency import _usb_loss
from dlp_plugins.consistency.contract import Batch, Step, supervised_loss
from dlp_plugins.consistency.usb import MEMBERS
from dlp_plugins.errors import RegistryError, UsageError
from dlp_plugins.network import Network
from dlp_plugins.recipe.check import load_recipe
from dlp_plugins.training import events
from dlp_plugins.training.run import run

pytestmark = pytest.mark.usb

# docs/usb.md says why.
LEFT_OUT = {
    "crmatch", "remixmatch",  # further heads, and rotated images for them
    "dash",  # needs a warm-up of its own
    "vat",  # asks for CUDA inside its loss
    "fullysupervised", "supervised",  # add nothing to the labels
}  # fmt: skip
# Without it a few steps pass before any image is sure enough for these to look at.
EVERY_IMAGE = {
    name: {"p_cutoff": 0.0}
    for name in (
        "adamatch",
        "comatch",
        "defixmatch",
        "fixmatch",
        "flexmatch",
        "pseudolabel",
        "simmatch",
        "uda",
    )
}
LABELED, BATCH, TOTAL_STEPS = 8, 24, 1000


@pytest.fixture(scope="module")
def data():
    return registry.datasets.build("digits")


def make_step(data, network, graph_labels: bool = False, number: int = 500) -> Step:
    images, truth = data.train.images[:BATCH], data.train.labels[:BATCH]
    labeled = torch.arange(BATCH) < LABELED
    known = labeled | torch.tensor(graph_labels)
    augment = ImageAugmentation(data.mean, data.std, translate=1)
    return Step(
        student=network,
        batch=Batch(
            images=images,
            index=torch.arange(BATCH),
            labels=torch.where(known, truth, -1),
            certainty=known.float() * torch.where(labeled, 1.0, 0.5),
            class_weights=torch.linspace(0.5, 1.5, 10) if graph_labels else torch.ones(10),
            num_labeled=LABELED,
            propagated=graph_labels,
        ),
        weak=augment.weak,
        strong=augment.strong,
        number=number,
        epoch=1.5,
        total_steps=TOTAL_STEPS,
    )


def make(name: str, data, **parameters):
    torch.manual_seed(0)
    network = Network(registry.backbones.build("small_cnn", input_shape=(1, 8, 8), width=8), 10)
    parameters = {"arguments": EVERY_IMAGE.get(name, {}), **parameters}
    method = registry.consistency.build(f"usb:{name}", num_classes=10, **parameters)
    method.extend(network)
    method.begin_stage(network, len(data.train), TOTAL_STEPS)
    return network, method


def test_every_usb_algorithm_is_driven_or_left_out_for_a_reason():
    plain = {name for name in ALGORITHMS.keys() if not name.startswith(("dlp", "cpu"))}  # noqa: SIM118
    assert set(MEMBERS) | LEFT_OUT == plain
    assert not set(MEMBERS) & LEFT_OUT


@pytest.mark.parametrize("name", MEMBERS)
def test_unlabeled_images_reach_the_student_alone(name, data):
    gradients = []
    for weight in (0.0, 1.0):
        network, method = make(name, data, ulb_loss_ratio=weight)
        with torch.no_grad():  # an average that differs from the student
            for p in method.teacher.parameters():
                p.add_(0.05 * torch.randn_like(p))
        torch.manual_seed(1)
        losses = method.losses(make_step(data, network))
        assert losses["supervised"] == 0  # nothing is propagated yet
        losses["usb"].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
        assert all(p.grad is None for p in method.teacher.parameters())
    assert gradients[1].isfinite().all()
    assert (gradients[1] - gradients[0]).norm() > 1e-4 * gradients[0].norm()


def test_fixmatch_is_usbs_formula(data):
    network, method = make("fixmatch", data, ulb_loss_ratio=2.0)
    torch.manual_seed(3)
    step = make_step(data, network)
    logits = network(torch.cat([step.view, step.strong(step.batch.images[LABELED:])])).logits
    weak, strong = logits[LABELED:BATCH].softmax(1), logits[BATCH:]
    cutoff = weak.max(1).values.median().item()
    sure = (weak.max(1).values >= cutoff).float()
    assert 0 < sure.sum() < len(sure)
    apart = F.cross_entropy(strong, weak.argmax(1), reduction="none")
    own = F.cross_entropy(logits[:LABELED], step.batch.labels[:LABELED])
    torch.manual_seed(3)
    method.algorithm.p_cutoff = cutoff
    loss = method.losses(make_step(data, network))["usb"]
    assert loss.item() == pytest.approx((own + 2.0 * (apart * sure).mean()).item(), rel=1e-5)


def test_propagated_labels_are_a_term_beside(data):
    network, method = make("fixmatch", data)
    step = make_step(data, network, graph_labels=True)
    network.eval()  # batch norm that does not depend on the batch
    found = method.losses(step)["supervised"]
    certainty = step.batch.certainty.clone()
    certainty[:LABELED] = 0
    expected = supervised_loss(network(step.view).logits, replace(step.batch, certainty=certainty))
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert found > 0
    soft = torch.full((BATCH, 10), 0.1)
    step.batch = replace(step.batch, probabilities=soft)
    assert method.losses(step)["supervised"].item() != pytest.approx(found.item(), rel=1e-2)


def test_teacher_is_the_average_with_ema_m(data):
    network, method = make("fixmatch", data, ema_m=0.9)
    before = {k: v.clone() for k, v in method.teacher.state_dict().items()}
    with torch.no_grad():
        for p in network.parameters():
            p.add_(1.0)
    network.backbone[1].running_mean.fill_(5.0)
    method.after_step(network, 0)
    after = method.teacher.state_dict()
    assert torch.allclose(after["head.weight"], before["head.weight"] + 0.1, atol=1e-6)
    assert torch.equal(after["backbone.1.running_mean"], network.backbone[1].running_mean)


STATEFUL = ("adamatch", "comatch", "flexmatch", "freematch", "simmatch", "softmatch")


@pytest.mark.parametrize("name", STATEFUL)
def test_state_brings_back_what_the_hooks_remember(name, data):
    network, method = make(name, data)
    for number in range(3):
        method.losses(make_step(data, network, number=number))
    saved = {k: v.clone() for k, v in method.state().items()}
    assert any(k.startswith("hooks.") for k in saved)
    other_network, other = make(name, data)
    other_network.load_state_dict(network.state_dict())
    other.load_state(saved)
    losses = []
    for n, m in ((network, method), (other_network, other)):
        torch.manual_seed(5)
        losses.append(m.losses(make_step(data, n))["usb"].item())
    assert losses[0] == losses[1]


def test_simmatchs_bank_has_an_entry_for_each_labeled_image(data):
    network, method = make("simmatch", data)
    step = make_step(data, network)
    method.losses(step)
    first = method.algorithm.mem_bank.clone()
    method.losses(step)
    algorithm = method.algorithm
    assert algorithm.seen.tolist() == list(range(LABELED))
    assert algorithm.labels_bank.tolist() == step.batch.labels[:LABELED].tolist()
    assert algorithm.mem_bank.shape == (128, LABELED)
    assert not torch.equal(algorithm.mem_bank, first)


def test_comatchs_queue_comes_round(data):
    network, method = make("comatch", data, arguments={"queue_batch": 2})
    for _ in range(3):
        method.losses(make_step(data, network))
    assert method.algorithm.queue_feats.shape == (2 * BATCH, 128)
    assert int(method.algorithm.queue_ptr) == BATCH
    assert (method.algorithm.queue_probs.sum(dim=1) > 0.99).all()


def test_an_unknown_argument_is_named_with_the_right_ones(data):
    with pytest.raises(
        UsageError, match=r"p_cutof.*Did you mean 'p_cutoff'.*Allowed: .*hard_label"
    ):
        make("fixmatch", data, arguments={"p_cutof": 0.9})


def test_an_algorithm_that_cannot_be_driven_is_not_offered():
    with pytest.raises(RegistryError, match="offers no 'crmatch'"):
        registry.consistency.build("usb:crmatch", num_classes=10)


def test_a_ramp_reaches_its_end_within_the_stage(data):
    """Mean Teacher's unlabelled loss rises over the first 0.4 of the stage's steps."""

    def unlabeled(number: int) -> float:
        found = []
        for weight in (1e4, 0.0):  # the networks differ little as yet
            network, method = make("meanteacher", data, ulb_loss_ratio=weight)
            with torch.no_grad():
                for p in method.teacher.parameters():
                    p.add_(0.05 * torch.randn_like(p))
            torch.manual_seed(1)
            found.append(method.losses(make_step(data, network, number=number))["usb"].item())
        return found[0] - found[1]

    full = unlabeled(TOTAL_STEPS - 1)
    assert full > 0.1
    assert unlabeled(400) == pytest.approx(full, rel=1e-3)
    assert unlabeled(200) == pytest.approx(full / 2, rel=1e-3)


def test_the_algorithm_gets_the_steps_of_its_stage(tmp_path, monkeypatch):
    steps = []
    drive = _usb_loss.drive

    def spy(name, view, num_classes, num_examples, settings, *rest):
        steps.append(settings["num_train_iter"])
        return drive(name, view, num_classes, num_examples, settings, *rest)

    monkeypatch.setattr(_usb_loss, "drive", spy)
    recipe = load_recipe("usb_fixmatch_lp_digits", [*SHORT, "training.stage_two_epochs=1"])
    run(recipe, tmp_path / "run", device="cpu")
    an_epoch = (300 - 20) // 80  # unlabelled images in batches of 80
    assert steps == [2 * an_epoch, an_epoch]


SHORT = ["training.stage_one_epochs=2", "dataset.num_train=300", "backbone.width=8"]


@pytest.mark.parametrize("method", ["fixmatch", "simmatch", "flexmatch"])
def test_run_broken_off_and_resumed_gives_the_same_weights(method, tmp_path):
    settings = [*SHORT, "training.stage_two_epochs=1", f"consistency.name=usb:{method}"]
    settings += ["consistency.arguments={}"]
    recipe = load_recipe("usb_fixmatch_lp_digits", settings)
    whole = run(recipe, tmp_path / "whole", device="cpu")
    assert 0 <= whole["test_error"] <= 100
    assert "teacher_test_error" in whole

    def break_off(event) -> None:
        if isinstance(event, events.PseudoLabelsRefreshed):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(recipe, tmp_path / "broken", device="cpu", listeners=[break_off])
    run(recipe, tmp_path / "broken", device="cpu", resume=True)
    for name in ("student", "teacher"):
        a, b = (tmp_path / f / f"checkpoint/{name}.safetensors" for f in ("whole", "broken"))
        assert a.read_bytes() == b.read_bytes()


def test_plain_recipe_has_no_propagation(tmp_path):
    summary = run(load_recipe("usb_fixmatch_digits", SHORT), tmp_path / "run", device="cpu")
    assert "pseudo_label_accuracy" not in summary
