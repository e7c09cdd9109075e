"""check_backbone, check_consistency and check_dataset."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from dlp_plugins.consistency.contract import Batch, Consistency, Step
from dlp_plugins.datasets.contract import Dataset, Images, TensorImages
from dlp_plugins.network import Network
from dlp_plugins.registry import backbones, consistency, datasets
from dlp_plugins.testing._common import built, require, require_tensor

CLASSES, EXAMPLES, TOTAL_STEPS = 3, 40, 200


def check_backbone(
    backbone: str | nn.Module,
    *,
    input_shape: tuple[int, ...] = (3, 32, 32),
    **parameters: Any,
) -> None:
    """Check a backbone: inputs to [b, num_features], each input by itself, gradients throughout.

    Args:
        input_shape: (channels, height, width) of images, or (d,) of vectors.

    Raises:
        AssertionError: the sentence says what is wrong.
    """
    if isinstance(backbone, str):
        parameters = {"input_shape": input_shape, **parameters}
    net: nn.Module = built(backbones, backbone, parameters)
    where = type(net).__name__
    width = getattr(net, "num_features", None)
    require(isinstance(width, int) and width > 0, f"{where}: num_features must be a number from 1")
    random = torch.Generator().manual_seed(0)
    images = torch.randn(4, *input_shape, generator=random)
    net.train()
    features = require_tensor(net(images), (4, int(width or 0)), f"{where}: features in training")
    features.square().sum().backward()
    without = [n for n, p in net.named_parameters() if p.requires_grad and p.grad is None]
    require(not without, f"{where}: no gradient reaches {', '.join(without)}")
    net.eval()
    with torch.no_grad():
        together = require_tensor(net(images), (4, int(width or 0)), f"{where}: features")
        alone = net(images[:1])
    require(
        torch.allclose(together[:1], alone, rtol=1e-3, atol=1e-4),
        f"{where}: in evaluation an image's features depend on the rest of the batch, or on chance",
    )


def check_consistency(method: str | Consistency, **parameters: Any) -> None:
    """Check a consistency method: its loss trains the student alone; its state survives a resume.

    Raises:
        AssertionError: the sentence says what is wrong.
    """
    if isinstance(method, str):
        parameters = {"num_classes": CLASSES, **parameters}
    m: Consistency = built(consistency, method, parameters)
    fresh = copy.deepcopy(m)
    where = type(m).__name__
    require(m.heads in (1, 2), f"{where}: heads must be 1 or 2; it is {m.heads}")
    student = _network(m)
    m.begin_stage(student, EXAMPLES, TOTAL_STEPS)
    _differ(student)  # a teacher that is an exact copy would have nothing to say
    m.begin_epoch(student, 0)
    batch = _batch()
    before = {k: t.clone() for k, t in vars(batch).items() if isinstance(t, Tensor)}
    losses = m.losses(_step(student, batch))
    require("supervised" in losses, f"{where}: losses lack 'supervised'")
    for name, loss in losses.items():
        require_tensor(loss, (), f"{where}: loss '{name}'")
    torch.stack(list(losses.values())).sum().backward()
    require(
        any(p.grad is not None and p.grad.any() for p in student.parameters()),
        f"{where}: no gradient reaches the student",
    )
    if m.teacher is not None:
        require(
            all(p.grad is None for p in m.teacher.parameters()),
            f"{where}: the loss has a gradient for the teacher",
        )
    m.begin_epoch(student, 1)  # a method that remembers the epoch before has targets now
    for name, loss in m.losses(_step(student, batch)).items():
        # The known slip: a teacher compared with itself, a loss that trains nothing.
        require(
            loss == 0 or loss.requires_grad,
            f"{where}: loss '{name}' has no gradient for the student",
        )
    require(
        all(torch.equal(getattr(batch, k), t) for k, t in before.items()),
        f"{where}: it changes the batch it is given",
    )
    m.after_step(student, 0)
    _check_soft_labels(m, student, where)
    _check_unlabeled(m, student, where)
    _check_state(m, fresh, student, where)


def _check_soft_labels(m: Consistency, student: Network, where: str) -> None:
    """In stage two 'supervised' must follow the probabilities, not only the likeliest class."""
    found = []
    for largest in (0.5, 0.9):
        torch.manual_seed(0)
        batch = _batch(largest=largest)
        found.append(m.losses(_step(student, batch))["supervised"].detach())
    require(
        not torch.equal(*found),
        f"{where}: 'supervised' does not use batch.probabilities; "
        "`dlp_plugins.consistency.supervised_loss` does",
    )


def _check_unlabeled(m: Consistency, student: Network, where: str) -> None:
    batch = _batch(labeled=0)
    losses = m.losses(_step(student, batch))
    for name, loss in losses.items():
        require_tensor(loss, (), f"{where}: loss '{name}' of a batch without labels")
    require(losses["supervised"] == 0, f"{where}: 'supervised' of a batch without labels must be 0")


def _check_state(m: Consistency, fresh: Consistency, student: Network, where: str) -> None:
    state = m.state()
    require(
        all(isinstance(t, Tensor) for t in state.values()), f"{where}: state must hold tensors only"
    )
    state = {k: v.clone() for k, v in state.items()}
    _differ(student)
    fresh.begin_stage(student, EXAMPLES, TOTAL_STEPS)
    fresh.load_state(state)
    loaded = fresh.state()
    require(loaded.keys() == state.keys(), f"{where}: state has other names after load_state")
    lost = [k for k, v in state.items() if not torch.equal(loaded[k], v)]
    require(not lost, f"{where}: load_state does not bring back {', '.join(lost)}")


def _network(m: Consistency) -> Network:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU())
    backbone.num_features = 8  # type: ignore[assignment]
    network = Network(backbone, CLASSES, m.heads, normalize_descriptor=False)
    m.extend(network)
    return network.train()


def _differ(student: nn.Module) -> None:
    with torch.no_grad():
        for p in student.parameters():
            p.add_(0.1 * torch.randn_like(p))


def _batch(labeled: int = 4, largest: float | None = None) -> Batch:
    """10 images; with `largest`, soft pseudo-labels that give the likeliest class so much."""
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(0, CLASSES, (10,), generator=random)
    probabilities = None
    if largest is not None:
        probabilities = torch.full((10, CLASSES), (1 - largest) / (CLASSES - 1))
        probabilities.scatter_(1, labels[:, None], largest)
    else:
        labels[labeled:] = -1
    return Batch(
        images=torch.randint(0, 256, (10, 1, 8, 8), dtype=torch.uint8, generator=random),
        index=torch.randperm(EXAMPLES, generator=random)[:10],
        labels=labels,
        certainty=(labels >= 0).float(),
        class_weights=torch.ones(CLASSES),
        num_labeled=labeled,
        propagated=largest is not None,
        probabilities=probabilities,
    )


def _step(student: Network, batch: Batch) -> Step:
    def view(images: Tensor) -> Tensor:
        return images.float() / 255 + 0.1 * torch.randn(images.shape)

    return Step(
        student, batch, weak=view, strong=view, number=100, epoch=10.0, total_steps=TOTAL_STEPS
    )


def check_dataset(dataset: str | Dataset, *, sample: int = 20, **parameters: Any) -> None:
    """Check a data set: images and labels of both splits. The rest `Dataset` itself refuses.

    Args:
        sample: images of each split that are read and looked at.

    Raises:
        AssertionError: the sentence says what is wrong.
    """
    d: Dataset = built(datasets, dataset, parameters)
    require(len(set(d.classes)) == d.num_classes, "a class name occurs twice")
    for name, split in (("train", d.train), ("test", d.test)):
        if split is None:
            continue
        _check_split(name, split, sample)


def _check_split(name: str, split: Images, sample: int) -> None:
    require_tensor(split.labels, (len(split),), f"{name} labels", torch.int64)
    for i in range(0, len(split), max(1, len(split) // sample)):
        image = split.images[i] if isinstance(split, TensorImages) else split[i]
        require_tensor(image, split.shape, f"{name} image {i}", split.dtype)
