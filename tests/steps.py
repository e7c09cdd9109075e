"""Small batches, networks and steps for the tests of consistency methods."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from dlp_plugins.augmentations.image import ImageAugmentation
from dlp_plugins.consistency import Batch, Consistency, Step
from dlp_plugins.network import Network
from dlp_plugins.registry import backbones, consistency

CLASSES, EXAMPLES, TOTAL_STEPS = 3, 40, 33
# `usb` is a family of another toolkit's methods, tested in tests/usb.
NAMES = [name for name in consistency.names() if name != "usb"]
AUGMENT = ImageAugmentation(mean=(0.5,), std=(0.25,), translate=1)


def build(name: str, **params: object) -> Consistency:
    # A threshold no prediction misses: an untrained network is never sure.
    defaults = {"fixmatch": {"threshold": 0.0}}.get(name, {})
    return consistency.build(name, num_classes=CLASSES, **{**defaults, **params})


def refuse_empty(module: nn.Module, inputs: tuple[Tensor]) -> None:
    assert len(inputs[0]), "an empty batch, which not every backbone takes"


def build_network(
    method: Consistency, seed: int = 0, dropout: float = 0.0, weight_norm_heads: str = "none"
) -> Network:
    torch.manual_seed(seed)
    backbone = backbones.build(
        "small_cnn", input_shape=(1, 8, 8), width=4, blocks=2, dropout=dropout
    )
    backbone.register_forward_pre_hook(refuse_empty)
    network = Network(backbone, CLASSES, method.heads, False, weight_norm_heads)
    return network.train()


def make_batch(labeled: int = 4, unlabeled: int = 6, seed: int = 0) -> Batch:
    """A batch of stage one."""
    g = torch.Generator().manual_seed(seed)
    count = labeled + unlabeled
    labels = torch.randint(0, CLASSES, (count,), generator=g)
    labels[labeled:] = -1
    return Batch(
        images=torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=g),
        index=torch.randperm(EXAMPLES, generator=g)[:count],
        labels=labels,
        certainty=(labels >= 0).float(),
        class_weights=torch.ones(CLASSES),
        num_labeled=labeled,
    )


def propagated(batch: Batch, soft: bool = False) -> Batch:
    """The same images in stage two: pseudo-labels, the last image reached by none."""
    g = torch.Generator().manual_seed(9)
    n, own = len(batch), batch.num_labeled
    p = torch.rand(n, CLASSES, generator=g)
    p /= p.sum(dim=1, keepdim=True)
    certainty = torch.rand(n, generator=g)
    p[-1], certainty[-1] = 0.0, 0.0
    labels = p.argmax(dim=1)
    labels[-1] = -1
    labels[:own], certainty[:own] = batch.labels[:own], 1.0
    return replace(
        batch,
        labels=labels,
        certainty=certainty,
        class_weights=torch.tensor([0.5, 1.5, 2.0]),
        propagated=True,
        probabilities=p if soft else None,
    )


def make_step(student: Network, batch: Batch, number: int = 3, epoch: float = 1.0) -> Step:
    return Step(student, batch, AUGMENT.weak, AUGMENT.strong, number, epoch, TOTAL_STEPS)


def begin(name: str, **params: object) -> tuple[Consistency, Network]:
    method = build(name, **params)
    student = build_network(method)
    method.begin_stage(student, EXAMPLES, TOTAL_STEPS)
    if method.teacher is not None:  # as after some training: not the student's twin
        with torch.no_grad():
            for p in method.teacher.parameters():
                p.add_(0.1 * torch.randn_like(p))
    return method, student


def softmax(logits: Tensor) -> np.ndarray:
    e = np.exp(logits.detach().double().numpy())
    return e / e.sum(axis=1, keepdims=True)


class Recorded:
    """A float64 step that keeps the views it asked for and each network's output for them."""

    def __init__(
        self, name: str, *, batch: Batch | None = None, epoch: float = 1.0, **params: object
    ) -> None:
        self.method, self.student = begin(name, **params)
        self.student.double()
        self.passes: list[tuple[str, Tensor, object]] = []
        self.student.register_forward_hook(self._hook("student"))
        if self.method.teacher is not None:
            self.method.teacher.double()
            self.method.teacher.register_forward_hook(self._hook("teacher"))
        self.views: list[Tensor] = []
        self.kinds: list[str] = []
        self.batch = batch or make_batch()
        weak, strong = self._view("weak"), self._view("strong")
        step = Step(self.student, self.batch, weak, strong, 3, epoch, TOTAL_STEPS)
        torch.manual_seed(5)
        self.terms = {k: float(v.detach()) for k, v in self.method.losses(step).items()}

    @property
    def total(self) -> float:
        return sum(self.terms.values())

    def _hook(self, who: str) -> object:
        def hook(module: nn.Module, inputs: tuple[Tensor], output: object) -> None:
            self.passes.append((who, inputs[0].detach(), output))

        return hook

    def _view(self, kind: str) -> object:
        def view(images: Tensor) -> Tensor:
            self.kinds.append(kind)
            self.views.append(getattr(AUGMENT, kind)(images).double())
            return self.views[-1]

        return view

    def by(self, who: str) -> list[tuple[Tensor, object]]:
        return [(x, output) for w, x, output in self.passes if w == who]


def label_targets(batch: Batch) -> np.ndarray:
    """[b, c] w_i z_j p_ij, by Python loops; p_i is one-hot for a hard label."""
    found = np.zeros((len(batch), CLASSES))
    for i in range(len(batch)):
        soft = batch.probabilities is not None and i >= batch.num_labeled
        for j in range(CLASSES):
            p = float(batch.probabilities[i, j]) if soft else float(j == batch.labels[i])
            found[i, j] = float(batch.certainty[i]) * float(batch.class_weights[j]) * p
    return found


def label_losses(p: np.ndarray, batch: Batch) -> np.ndarray:
    """[b] w_i sum_j z_j p_ij (-log f_j(x_i)) of the network's softmax [b, c]."""
    return -(label_targets(batch) * np.log(p)).sum(axis=1)
