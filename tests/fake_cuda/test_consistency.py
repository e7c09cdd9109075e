"""A training step of each consistency method on a CUDA device never waits for it.

The device is not there: `fake_device` says how. test_step.py takes these steps in bfloat16 too.
USB's methods are not ours to change and do wait.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fake_device import CUDA, Crossings, differentiate, fake_cuda, to_fake_cuda
from steps import CLASSES, EXAMPLES, NAMES, TOTAL_STEPS, build
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

from dlp_plugins.consistency import Batch, Consistency, Step
from dlp_plugins.network import Network
from dlp_plugins.registry import backbones


def make_batch(labeled: int = 4, unlabeled: int = 6) -> Batch:
    count = labeled + unlabeled
    return Batch(
        images=torch.zeros(count, 1, 8, 8, dtype=torch.uint8, device=CUDA),
        index=torch.arange(count, device=CUDA),
        labels=torch.zeros(count, dtype=torch.int64, device=CUDA),
        certainty=torch.zeros(count, device=CUDA),
        class_weights=torch.ones(CLASSES, device=CUDA),
        num_labeled=labeled,
    )


STAGES = {
    "one": lambda: make_batch(),
    "two": lambda: replace(
        make_batch(), propagated=True, probabilities=torch.rand(10, CLASSES, device=CUDA)
    ),
    "all labelled": lambda: make_batch(labeled=10, unlabeled=0),
}


def begin(method: Consistency) -> Network:
    backbone = backbones.build("small_cnn", input_shape=(1, 8, 8), width=4, blocks=2, dropout=0.5)
    student = to_fake_cuda(
        Network(backbone, CLASSES, method.heads, weight_norm_heads="both").train()
    )
    method.begin_stage(student, EXAMPLES, TOTAL_STEPS)
    method.begin_epoch(student, 0)
    return student


def one_step(method: Consistency, student: Network, batch: Batch) -> list[str]:
    """Loss, backward pass and average; the operations that moved data between devices."""

    def view(images: Tensor) -> Tensor:
        return images.float() / 255 + 0.1 * torch.rand(images.shape, device=CUDA)

    with Crossings() as crossings:
        terms = method.losses(Step(student, batch, view, view, 3, 1.0, TOTAL_STEPS))
        torch.stack([t.float() for t in terms.values()]).sum().backward()
        with torch.no_grad():
            method.after_step(student, 3)
    assert all(t.device == CUDA and t.dtype == torch.float32 for t in terms.values())
    return crossings.found


@pytest.mark.filterwarnings("ignore:Accessing the data pointer")  # by copy.deepcopy of a student
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", NAMES)
def test_a_step_waits_for_nothing_and_copies_nothing(name: str, stage: str) -> None:
    with fake_cuda():
        method = build(name)
        student = begin(method)
        crossings = one_step(method, student, STAGES[stage]())
        gradients = [p.grad for p in student.parameters()]
    assert crossings == []
    assert any(g is not None for g in gradients)
    assert all(g.device == CUDA for g in gradients if g is not None)


class Reads(Consistency):
    """A method that does one thing which the contract forbids."""

    def __init__(self, forbidden: str) -> None:
        self.forbidden = forbidden

    def losses(self, step: Step) -> dict[str, Tensor]:
        terms, certainty = super().losses(step), step.batch.certainty
        match self.forbidden:
            case "item":
                terms["item"] = terms["supervised"] * certainty.sum().item()
            case "if":
                terms["if"] = terms["supervised"] if certainty.any() else certainty.sum()
            case "mask":
                terms["mask"] = step.output.logits[certainty > 0].sum()
            case "nonzero":
                terms["nonzero"] = step.output.logits[certainty.nonzero()].sum()
            case "host data":
                terms["host"] = terms["supervised"] * torch.tensor(0.5, device=CUDA)
            case "cpu":
                terms["cpu"] = terms["supervised"] * certainty.cpu().sum().to(CUDA)
            case "cpu index":
                terms["index"] = step.output.logits[torch.arange(2, device="cpu")].sum()
        return terms


@pytest.mark.parametrize("forbidden", ["item", "if", "mask", "nonzero"])
def test_a_method_that_waits_is_found(forbidden: str) -> None:
    with fake_cuda():
        method = Reads(forbidden)
        with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
            one_step(method, begin(method), make_batch())


@pytest.mark.parametrize("forbidden", ["host data", "cpu", "cpu index"])
def test_a_method_that_copies_between_devices_is_found(forbidden: str) -> None:
    with fake_cuda():
        method = Reads(forbidden)
        assert one_step(method, begin(method), make_batch()) != []


def test_the_gradients_of_the_walk_are_those_of_torch() -> None:
    """`differentiate` on a real network, so that its fake gradients can be believed."""
    torch.manual_seed(0)
    backbone = backbones.build("small_cnn", input_shape=(1, 8, 8), width=4, blocks=2)
    network = Network(backbone, CLASSES)
    output = network(torch.rand(5, 1, 8, 8))
    loss = output.logits.square().sum() + output.descriptor.max(dim=1).values.sum()
    found = differentiate(loss)
    loss.backward()
    for name, p in network.named_parameters():
        assert torch.allclose(found[p], p.grad, atol=1e-6), name
