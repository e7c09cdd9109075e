"""A whole training step on a CUDA device: views, network, loss, gradients, optimizer.

Each backbone, consistency method, augmentation and optimizer at least once beside the defaults of
the others, and the pairs that share code. `fake_device` says what stands in for the device.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from fake_device import CUDA, Crossings, FakeAccelerator, fake_cuda
from steps import CLASSES, EXAMPLES, NAMES, TOTAL_STEPS
from torch._subclasses.fake_tensor import DataDependentOutputException

from dlp_plugins import registry
from dlp_plugins.consistency import Batch
from dlp_plugins.datasets.contract import TensorImages
from dlp_plugins.recipe.check import check_layers
from dlp_plugins.recipe.files import settings_layer
from dlp_plugins.recipe.model import Recipe
from dlp_plugins.training.batches import ImageStore
from dlp_plugins.training.learner import Learner
from dlp_plugins.training.precision import resolve
from dlp_plugins.training.trainer import Trainer

SHAPE, BATCH, LABELED = (3, 32, 32), 6, 2  # imagenet-lite takes nothing smaller
DEFAULT = {
    "backbone": "small_cnn",
    "consistency": "none",
    "augmentation": "image",
    "optimizer": "sgd",
}
MOVED = {"augmentation.translate": 2, "augmentation.flip": True, "augmentation.rotate": 10.0}
SINGLE: list[dict[str, Any]] = [
    *({"backbone": name} for name in ("small_cnn", "cnn13", "resnet18", "imagenet-lite", "mlp")),
    *({"consistency": name} for name in NAMES if name != "none"),
    {"augmentation": "noise"},
    {"optimizer": "adamw"},
]
PAIRS: list[dict[str, Any]] = [
    {"consistency": "fixmatch", **MOVED},
    {"consistency": "fixmatch", "augmentation": "noise", "backbone": "mlp"},
    {"consistency": "mean_teacher", "backbone": "cnn13", "backbone.weight_norm_heads": "both"},
    {"consistency": "vat", "backbone": "mlp", "optimizer": "adamw", "optimizer.clip_norm": 1.0},
    {"optimizer": "torch:NAdam"},
]
CASES = [
    *((case, precision) for case in SINGLE for precision in ("float32", "bfloat16")),
    *((case, "bfloat16") for case in PAIRS),
]


def test_no_component_is_left_out() -> None:
    for key in DEFAULT:
        kind = registry.of_kind(key)
        names = {name for name in kind.names() if not kind.find(name).family}
        assert names == {DEFAULT[key], *(case[key] for case in SINGLE if key in case)}


def make_recipe(case: dict[str, Any], precision: str) -> Recipe:
    settings = {**{f"{key}.name": value for key, value in DEFAULT.items()}}
    settings |= {key if "." in key else f"{key}.name": value for key, value in case.items()}
    if settings["backbone.name"] == "small_cnn":
        settings |= {"backbone.width": 4, "backbone.blocks": 1}
    if settings["consistency.name"] == "fixmatch":
        settings["consistency.threshold"] = 0.0
    recipe = check_layers([settings_layer({**settings, "training.precision": precision})])
    return resolve(recipe, CUDA)


def make_learner(recipe: Recipe) -> Learner:
    data: Any = SimpleNamespace(
        truth=range(EXAMPLES),
        dataset=SimpleNamespace(num_classes=CLASSES, mean=(0.5,) * 3, std=(0.2,) * 3),
        train=SimpleNamespace(source=SimpleNamespace(shape=SHAPE)),
    )
    learner = Learner(recipe, data, FakeAccelerator(recipe.training.precision))  # type: ignore
    learner.begin_stage(TOTAL_STEPS)
    learner.consistency.begin_epoch(learner.network, 0)
    return learner


def make_batch(propagated: bool) -> Batch:
    return Batch(
        images=torch.zeros(BATCH, *SHAPE, dtype=torch.uint8, device=CUDA),
        index=torch.arange(BATCH, device=CUDA),
        labels=torch.zeros(BATCH, dtype=torch.int64, device=CUDA),
        certainty=torch.zeros(BATCH, device=CUDA),
        class_weights=torch.ones(CLASSES, device=CUDA),
        num_labeled=LABELED,
        propagated=propagated,
        probabilities=torch.rand(BATCH, CLASSES, device=CUDA) if propagated else None,
    )


def recorded_step(learner: Learner, propagated: bool) -> tuple[dict[str, Any], list[str]]:
    """The second step's losses and crossings: the first one makes what is made once."""
    batches = [make_batch(propagated) for _ in range(2)]
    with Crossings() as crossings:
        learner.step(batches[0], 0, 0.0, 4)
        crossings.found.clear()
        losses = learner.step(batches[1], 1, 0.1, 4)
    return losses, crossings.found


@pytest.mark.filterwarnings("ignore:Accessing the data pointer")
@pytest.mark.parametrize(
    ("case", "precision"),
    CASES,
    ids=lambda c: c if isinstance(c, str) else ",".join(map(str, c.values())),
)
def test_a_step_waits_for_nothing_and_copies_nothing(case: dict[str, Any], precision: str) -> None:
    with fake_cuda():
        learner = make_learner(make_recipe(case, precision))
        outputs: list[Any] = []
        learner.network.register_forward_hook(lambda *call: outputs.append(call[2].logits.dtype))
        losses, crossings = recorded_step(learner, propagated=precision == "bfloat16")
        parameters = list(learner.network.parameters())
    assert crossings == []
    expected = {getattr(torch, precision)}
    if case.get("consistency") == "vat":  # looks for its direction in float32
        expected.add(torch.float32)
    assert set(outputs) == expected
    assert all(t.device == CUDA and t.dtype == torch.float32 for t in losses.values())
    for p in parameters:
        assert (p.device, p.dtype) == (CUDA, torch.float32)
        assert p.grad is None or (p.grad.device, p.grad.dtype) == (CUDA, torch.float32)
    assert any(p.grad is not None for p in parameters)


def hide_in(place: str, learner: Learner) -> None:
    """Give the learner a part that does what no step may do."""
    weak = learner.augmentation.weak
    match place:
        case "view, .cpu()":
            learner.augmentation.weak = lambda x: weak(x).cpu().to(CUDA)  # type: ignore
        case "view, CPU index":
            learner.augmentation.weak = lambda x: weak(x)[torch.arange(len(x))]  # type: ignore
        case "network, host data":
            learner.network.backbone.register_forward_hook(
                lambda m, x, y: y * torch.tensor(0.5, device=CUDA)
            )
        case "network, item":
            learner.network.backbone.register_forward_hook(lambda m, x, y: y * y.sum().item())
        case "optimizer, norm on the host":
            before = learner.optimizer.step
            learner.optimizer.step = lambda: before() if learner.network.head.bias.any() else None


@pytest.mark.filterwarnings("ignore:Accessing the data pointer")
@pytest.mark.parametrize(
    ("place", "waits"),
    [
        ("view, .cpu()", False),
        ("view, CPU index", False),
        ("network, host data", False),
        ("network, item", True),
        ("optimizer, norm on the host", True),
    ],
)
def test_what_a_step_may_not_do_is_found(place: str, waits: bool) -> None:
    with fake_cuda():
        learner = make_learner(make_recipe({}, "float32"))
        hide_in(place, learner)
        if waits:
            with pytest.raises(DataDependentOutputException):
                recorded_step(learner, propagated=False)
        else:
            assert recorded_step(learner, propagated=False)[1] != []


class StillData:
    """An epoch's images on the device, as an ImageStore that holds them there gives them."""

    source = SimpleNamespace(shape=SHAPE)

    def __init__(self) -> None:
        self.unreadable: dict[int, str] = {}
        self.images = torch.zeros(EXAMPLES, *SHAPE, dtype=torch.uint8, device=CUDA)

    def batches(self, plan: list[torch.Tensor]) -> Any:
        return (self.images[positions] for positions in plan)

    def known(self, labels: torch.Tensor) -> torch.Tensor:
        return labels


def make_trainer(stage: int) -> tuple[Trainer, StillData]:
    settings = {f"training.{key}": 1 for key in ("stage_one_epochs", "stage_two_epochs")}
    settings |= {"training.stage_one_steps": 3}
    settings |= {"training.batch_size": BATCH, "training.labeled_per_batch": LABELED}
    recipe = make_recipe(settings, "bfloat16")
    store = StillData()
    data: Any = SimpleNamespace(
        train=store,
        truth=range(EXAMPLES),
        dataset=SimpleNamespace(num_classes=CLASSES, mean=(0.5,) * 3, std=(0.2,) * 3),
        labeled=torch.arange(LABELED),
        unlabeled=torch.arange(LABELED, EXAMPLES),
        known_labels=torch.zeros(EXAMPLES, dtype=torch.int64, device=CUDA),
        test=None,
        validation=None,
    )
    accelerator: Any = FakeAccelerator("bfloat16")
    trainer = Trainer(recipe, data, accelerator, folder=None, tell=lambda event: None)  # type: ignore
    trainer.progress.stage = stage
    trainer.begin()
    return trainer, store


@pytest.mark.filterwarnings("ignore:Accessing the data pointer")
@pytest.mark.parametrize("unreadable", [{}, {7: "no image"}], ids=["", "one unreadable"])
@pytest.mark.parametrize("stage", [0, 1], ids=["labels", "pseudo-labels"])
def test_an_epoch_copies_its_positions_once_and_then_waits_for_nothing(
    stage: int, unreadable: dict[int, str]
) -> None:
    with fake_cuda(), Crossings() as crossings:
        trainer, store = make_trainer(stage)
        store.unreadable = unreadable
        plan = trainer._plan(trainer.stages[stage][0])
        on_device = [p.to(CUDA) for p in plan]
        for positions, images in zip(on_device, store.batches(on_device), strict=True):
            trainer._step(positions, images, len(plan), len(positions))
            trainer.progress.step += 1
            if trainer.progress.step == 1:
                crossings.found.clear()  # the first one makes what is made once
    assert trainer.progress.step > 1
    assert crossings.found == []
    assert {t.device for t in trainer.losses._sums.values()} == {CUDA}


@pytest.mark.parametrize("room", [2**30, 0], ids=["on the device", "pinned"])
def test_images_in_memory_come_to_the_device(room: int) -> None:
    """The device's name may lack its number, as Accelerate's does for a single one."""
    with (
        fake_cuda(),
        mock.patch("torch.cuda.mem_get_info", return_value=(room, room)),
        mock.patch.object(torch.Tensor, "pin_memory", lambda images: images),
        mock.patch("dlp_plugins.training.batches.sent_ahead", lambda b, to: (x.to(to) for x in b)),
    ):
        images = TensorImages(torch.zeros(8, *SHAPE, dtype=torch.uint8), torch.zeros(8).long())
        store = ImageStore(images, torch.device("cuda"), workers=0)
        plan = [torch.arange(4, device=CUDA)]
        with Crossings() as crossings:
            batch = next(store.batches(plan))
    assert (batch.device, batch.shape) == (CUDA, (4, *SHAPE))
    assert (crossings.found == []) == (room > 0)
