"""dlp, dlp_meanteacher and the hook, run by USB itself: config file, get_algorithm, train."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from semilearn.core.hooks import Hook
from semilearn.core.utils import ALGORITHMS
from torch.utils.data import DataLoader
from usb_digits import PER_CLASS

from dlp_plugins.errors import PluginError, UsageError
from dlp_plugins.hosts.usb import AnyDevice, AnyDeviceTrainer, LabelPropagationHook
from dlp_plugins.hosts.usb.combined import BASES
from dlp_plugins.propagation import propagate

pytestmark = pytest.mark.usb

LABELED = 10 * PER_CLASS
ONE_STEP = {"epoch": 2, "num_train_iter": 2, "num_eval_iter": 1000}


class Recorder(Hook):
    """Keeps a figure of every step."""

    def __init__(self, *keys: str) -> None:
        self.keys = keys
        self.seen: dict[str, list[float]] = {key: [] for key in keys}

    def after_train_step(self, algorithm) -> None:
        for key in self.keys:
            if key in algorithm.log_dict:
                self.seen[key].append(algorithm.log_dict[key])


def student_error(algorithm) -> float:
    truth, predicted, _ = algorithm.answers(algorithm.loader_dict["eval"])
    return 100 * float((truth != predicted).mean())


def descriptors_by_hand(algorithm, images) -> torch.Tensor:
    """Features of raw images, by a path of our own: no USB loader, no transform."""
    pixels = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    algorithm.model.eval()
    with torch.no_grad():
        return algorithm.model(pixels)["feat"]


# -- dlp -------------------------------------------------------------------------------------------


def test_config_file_drives_dlp_and_the_error_falls(usb):
    algorithm = usb("dlp", views_of="pseudolabel", epoch=8, num_train_iter=160)
    untrained = student_error(algorithm)
    recorder = Recorder("eval/student-top-1-acc", "train/lp_unreached", "lr")
    algorithm.register_hook(recorder, priority="LOWEST")
    algorithm.train()
    errors = [100 * (1 - a) for a in recorder.seen["eval/student-top-1-acc"]]
    assert len(errors) == 8
    assert errors[-1] < errors[3] < untrained  # stage two better than stage one than nothing
    assert errors[-1] < 15
    # USB logs the rate after its scheduler's step: again from 0.1 at stage two
    assert recorder.seen["lr"][79] == pytest.approx(0.1)
    assert recorder.seen["lr"][78] < 0.01
    assert algorithm.results_dict["eval/best_acc"] > 0.85


def test_pseudo_labels_equal_those_of_propagate(usb):
    algorithm = usb("dlp", views_of="pseudolabel", **ONE_STEP)
    algorithm.train()
    lb, ulb = algorithm.dataset_dict["train_lb"], algorithm.dataset_dict["train_ulb"]
    labels = torch.full((len(ulb),), -1)
    labels[:LABELED] = torch.from_numpy(lb.targets)
    expected = propagate(
        descriptors_by_hand(algorithm, ulb.data), labels, 10, k=10, on_unconverged="ignore"
    )
    found = algorithm.propagation.refresh(algorithm)
    assert torch.equal(found.labels, expected.labels)
    assert torch.allclose(found.weights, expected.weights, atol=1e-4)
    # and what the loss is given for a batch is that
    index = torch.tensor([0, LABELED, 1000])
    given, weights, _ = algorithm.propagation.of_batch(index)
    assert torch.equal(given, expected.labels[index])
    assert torch.allclose(weights, expected.weights[index], atol=1e-4)


def test_labeled_images_outside_the_unlabeled_set_come_first(usb):
    algorithm = usb("dlp", views_of="pseudolabel", included=False, **ONE_STEP)
    algorithm.train()
    lb, ulb = algorithm.dataset_dict["train_lb"], algorithm.dataset_dict["train_ulb"]
    descriptors = torch.cat([descriptors_by_hand(algorithm, s.data) for s in (lb, ulb)])
    labels = torch.cat([torch.from_numpy(lb.targets), torch.full((len(ulb),), -1)])
    expected = propagate(descriptors, labels, 10, k=10, on_unconverged="ignore")
    algorithm.propagation.refresh(algorithm)
    given, _, _ = algorithm.propagation.of_batch(torch.arange(len(ulb)))
    assert torch.equal(given, expected.labels[LABELED:])


def test_loss_of_stage_two_is_the_papers(usb):
    algorithm = usb("dlp", views_of="pseudolabel", dlp_warm_up=0.0, **ONE_STEP)
    algorithm.train()
    batch = {**next(iter(algorithm.loader_dict["train_lb"]))}
    batch |= next(iter(algorithm.loader_dict["train_ulb"]))
    given = algorithm.process_batch(**batch)
    out, _ = algorithm.train_step(**given)
    pseudo = algorithm.propagation.pseudo
    algorithm.model.train()
    logits = algorithm.model(torch.cat([given["x_lb"], given["x_ulb_w"]]))["logits"].double()
    labels = torch.cat([given["y_lb"], pseudo.labels[given["idx_ulb"]]])
    certainty = torch.cat([torch.ones(len(given["y_lb"])), pseudo.certainty[given["idx_ulb"]]])
    per_example = F.cross_entropy(logits, labels, reduction="none")
    expected = (certainty * pseudo.class_weights[labels] * per_example).mean()
    assert out["loss"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_evaluation_measures_the_average_and_the_student(usb):
    algorithm = usb("dlp", views_of="pseudolabel", ema_m=0.5, **ONE_STEP)
    algorithm.train()
    measured = algorithm.evaluate("eval")
    images, truth = (getattr(algorithm.dataset_dict["eval"], k) for k in ("data", "targets"))
    truth = torch.from_numpy(truth)
    pixels = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    for network, key in (
        (algorithm.model, "student-top-1-acc"),
        (algorithm.ema_model, "top-1-acc"),
    ):
        with torch.no_grad():
            logits = network.eval()(pixels)["logits"]
        accuracy = (logits.argmax(1) == truth).double().mean().item()
        assert measured[f"eval/{key}"] == pytest.approx(accuracy)
    assert measured["eval/loss"] == pytest.approx(F.cross_entropy(logits, truth).item(), rel=1e-4)


# -- components of this project, and of the user ---------------------------------------------------


def test_users_own_solver_works_inside_usb(usb, tmp_path):
    plugin = tmp_path / "my_solver.py"
    plugin.write_text(
        "from dlp_plugins.registry import solvers\n"
        "from dlp_plugins.solvers.contract import Solution, Solver\n"
        "@solvers.register('for_usb')\n"
        "class ForUsb(Solver):\n"
        "    'One step of spreading, so many times as strong.'\n"
        "    def __init__(self, strength: int = 1):\n"
        "        self.strength = strength\n"
        "    def solve(self, state, labels, initial=None):\n"
        "        scores = labels + self.strength * state.matmul(labels)\n"
        "        return Solution(scores, 1, labels.new_zeros(labels.shape[1]), True)\n"
    )
    algorithm = usb(
        "dlp", views_of="pseudolabel", dlp_plugin=str(plugin),
        dlp_solver={"name": "for_usb", "strength": 3}, dlp_weighter="margin", **ONE_STEP,
    )  # fmt: skip
    algorithm.train()
    propagator = algorithm.propagation.propagator
    assert type(propagator.solver).__name__ == "ForUsb"
    assert propagator.solver.strength == 3
    assert type(propagator.weighter).__name__ == "Margin"
    assert propagator.graph.k == 10
    # one step leaves most points without a label: it is this solver that was used
    assert algorithm.propagation.pseudo.health.not_yet_reached > 500


def test_every_wrong_key_is_named_with_what_is_allowed(usb):
    with pytest.raises(UsageError) as raised:
        usb("dlp", dlp_solver="cgg", dlp_graph={"name": "exact", "neighbours": 3})
    message = str(raised.value)
    assert "Did you mean 'cg'?" in message
    assert "neighbours" in message
    assert "Allowed: k" in message


def test_a_run_in_which_labels_would_never_spread_is_refused(usb):
    with pytest.raises(UsageError, match="Raise epoch, or lower dlp_warm_up"):
        usb("dlp", epoch=1)


# -- Mean Teacher ----------------------------------------------------------------------------------


def one_step(algorithm):
    batch = {**next(iter(algorithm.loader_dict["train_lb"]))}
    batch |= next(iter(algorithm.loader_dict["train_ulb"]))
    return algorithm.train_step(**algorithm.process_batch(**batch))


def test_mean_teachers_consistency_reaches_the_student_and_only_it(usb):
    algorithm = usb("dlp_meanteacher", views_of="meanteacher", dlp_rampup_epochs=0, **ONE_STEP)
    algorithm.train()
    algorithm.propagation.pseudo = None
    with torch.no_grad():  # a teacher that disagrees
        for p in algorithm.ema_model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    gradients = []
    for weight in (0.0, 1.0):
        algorithm.lambda_u = weight
        algorithm.model.zero_grad()
        torch.manual_seed(0)
        out, log = one_step(algorithm)
        out["loss"].backward()
        gradients.append(algorithm.model.backbone.conv1.weight.grad.clone())
        assert all(p.grad is None for p in algorithm.ema_model.parameters())
    assert log["train/consistency"] > 0
    apart = (gradients[1] - gradients[0]).norm()
    assert apart > 0.1 * gradients[0].norm()


def test_teacher_is_the_average_of_the_students(usb):
    algorithm = usb(
        "dlp_meanteacher", views_of="meanteacher", ema_m=0.7, epoch=2, num_train_iter=8,
        num_eval_iter=1000,
    )  # fmt: skip
    students, teachers = [], []

    class Weights(Hook):
        def before_train_epoch(self, algorithm):
            students.append(algorithm.model.backbone.conv1.weight.detach().clone())
            teachers.append(algorithm.ema_model.backbone.conv1.weight.detach().clone())

        after_train_step = before_train_epoch

    algorithm.register_hook(Weights(), priority="LOWEST")
    algorithm.train()
    assert len(students) == 10  # a start and four steps, of each stage
    for stage in (0, 5):
        expected = students[stage]
        assert torch.equal(teachers[stage], expected)  # a fresh copy of the student
        for step in range(4):
            decay = min(1 - 1 / (step + 1), 0.7)
            expected = decay * expected + (1 - decay) * students[stage + step + 1]
            assert torch.allclose(teachers[stage + step + 1], expected, atol=1e-6)
    assert not torch.allclose(teachers[-1], students[-1])


def test_mean_teacher_learns_and_both_networks_are_measured(usb):
    algorithm = usb("dlp_meanteacher", views_of="meanteacher")
    algorithm.train()
    measured = algorithm.evaluate("eval")
    assert measured["eval/top-1-acc"] > 0.85
    assert measured["eval/student-top-1-acc"] > 0.85


# -- the hook inside USB's algorithms --------------------------------------------------------------


@pytest.mark.parametrize("name", BASES)
def test_graph_labels_and_certainties_take_the_place_of_the_algorithms_own(usb, name):
    algorithm = usb(f"dlp_{name}", views_of=name, **ONE_STEP)
    given: dict[str, list] = {"mask": [], "target": []}
    loss = algorithm.consistency_loss

    def spy(logits, targets, kind="ce", mask=None):
        given["mask"].append(mask)
        given["target"].append(targets)
        return loss(logits, targets, kind, mask=mask)

    algorithm.consistency_loss = spy
    batches = []
    process_batch = algorithm.process_batch
    algorithm.process_batch = lambda **b: (batches.append(b["idx_ulb"]), process_batch(**b))[1]
    algorithm.train()
    hook = algorithm.hooks_dict["LabelPropagationHook"]
    hard, weights, soft = hook.of_batch(batches[1])
    assert torch.allclose(given["mask"][1], weights)
    if name == "uda":
        assert torch.allclose(given["target"][1], soft)
    else:
        assert torch.equal(given["target"][1], hard)
    # stage one: the algorithm's own, which are not these
    own = hook.of_batch(batches[0])[1]
    assert not torch.allclose(given["mask"][0], own)


def test_fixmatch_with_label_propagation_learns(usb):
    algorithm = usb("dlp_fixmatch", epoch=4, num_train_iter=100)
    untrained = student_error(algorithm)
    algorithm.train()
    assert student_error(algorithm) < 20 < untrained


def test_hook_is_taken_by_an_algorithm_of_usbs_own(usb):
    # A user's algorithm and hook, put together by hand. AnyDevice is only for this CPU.
    algorithm = usb("dlp_fixmatch", **ONE_STEP)
    del algorithm.hooks_dict["LabelPropagationHook"]
    hook = LabelPropagationHook(algorithm_propagator(algorithm), first_epoch=0)
    algorithm.register_hook(hook, "mine")
    algorithm.train()
    assert hook.pseudo is not None
    assert algorithm.hooks_dict["mine"] is hook


def algorithm_propagator(algorithm):
    from dlp_plugins.hosts.usb.arguments import build_propagator

    return build_propagator(algorithm.args)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("meanteacher", "no MaskingHook and no PseudoLabelingHook"),
        ("simmatch", "no PseudoLabelingHook"),
        ("defixmatch", "labelled batch as well"),
    ],
)
def test_hook_refuses_what_it_cannot_serve(name, says):
    class Fake:
        hooks_dict = {"MaskingHook": None} if name == "simmatch" else {}

    algorithm = Fake() if name != "defixmatch" else object.__new__(ALGORITHMS[name])
    with pytest.raises(PluginError, match=says):
        LabelPropagationHook(propagator=None).before_run(algorithm)


def test_usbs_own_fixmatch_runs_on_a_cpu_with_the_mixin_alone(usb):
    fixmatch = ALGORITHMS["fixmatch"]
    ALGORITHMS.register("cpu_fixmatch")(type("CpuFixMatch", (AnyDevice, fixmatch), {}))
    algorithm = usb("cpu_fixmatch", **ONE_STEP)
    algorithm.train()
    assert algorithm.it == 2


# -- checkpoints and Trainer -----------------------------------------------------------------------


class StopAfter(Hook):
    def __init__(self, step: int) -> None:
        self.step = step

    def before_train_step(self, algorithm) -> None:
        if algorithm.it == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["dlp", "dlp_meanteacher", "dlp_flexmatch", "dlp_softmatch"])
def test_checkpoint_saved_by_usb_is_resumed(usb, tmp_path, name):
    settings = {"views_of": {"dlp": "pseudolabel"}.get(name, "fixmatch"), "epoch": 4,
                "num_train_iter": 16, "num_eval_iter": 8}  # fmt: skip
    broken = usb(name, **settings)
    broken.register_hook(StopAfter(8), priority="LOWEST")
    with pytest.raises(KeyboardInterrupt):
        broken.train()
    path = tmp_path / "run" / "latest_model.pth"
    resumed = usb(name, resume=True, load_path=str(path), **settings)
    resumed.load_model(path)
    assert resumed.it == 8
    assert resumed.start_epoch == 2
    for key, value in broken.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[key], value), key
    for hook, there in broken.hooks_dict.items():
        for key, value in vars(there).items():
            if isinstance(value, torch.Tensor) and not key.startswith("_"):
                assert torch.equal(getattr(resumed.hooks_dict[hook], key), value), (hook, key)
    assert resumed.optimizer.param_groups[0]["lr"] == broken.optimizer.param_groups[0]["lr"]
    resumed.train()
    assert resumed.it == 16
    hooks = resumed.hooks_dict["LabelPropagationHook"]
    assert hooks.pseudo is not None
    assert hooks.pseudo.health.unreached == 0


def test_trainer_fit_learns(usb):
    algorithm = usb("dlp", views_of="pseudolabel")
    untrained = student_error(algorithm)
    trainer = AnyDeviceTrainer(algorithm.args, algorithm)
    trainer.fit(*(algorithm.loader_dict[k] for k in ("train_lb", "train_ulb", "eval")))
    assert algorithm.propagation.pseudo is not None
    loader: DataLoader = algorithm.loader_dict["eval"]
    assert 100 * (1 - trainer.evaluate(loader)["acc"]) < untrained - 30
    predicted, probabilities, truth = trainer.predict(loader, use_ema_model=True, return_gt=True)
    assert probabilities.argmax(1).tolist() == predicted.tolist()
    assert (predicted == truth).mean() > 0.5
