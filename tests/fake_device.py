"""A CUDA device that is not there: tensors of shapes and dtypes alone, which report it as theirs.

`FakeTensorMode` refuses whatever would wait for the device (`.item()`, `if t:`, boolean masks,
`nonzero`) and most operations on tensors of two devices. Copies between devices it lets pass, so
`Crossings` records them. Torch's own backward pass asks for the driver, so `differentiate` walks
the graph of gradients itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CUDA = torch.device("cuda", 0)
M = TypeVar("M", bound=nn.Module)


class Crossings(TorchDispatchMode):
    """Names of the operations that move data between devices, in `found`.

    A tensor without dimensions on the CPU may stand beside CUDA tensors: its value is an argument
    of the kernel, unless it is an index.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default and args[0].device.type == "cpu":
            return 0.5  # reading the CPU's memory waits for nothing; Adam keeps its step there
        # A fused optimizer's kernel changes its arguments; fake tensors know no stand-in for it.
        fused = func.overloadpacket.__name__.startswith("_fused_")
        result = None if fused else func(*args, **kwargs)
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        made = [t for t in tree_leaves(result) if isinstance(t, FakeTensor)]
        for t in made:
            t.constant = None  # with a value that it knows, torch would compute on the device
        name = func.overloadpacket.__name__
        if "copy" in name:  # _to_copy, copy_
            given += made
        elif "index" not in name:
            given = [t for t in given if t.ndim or t.device.type != "cpu"]
        if len({t.device for t in given}) > 1:
            self.found.append(str(func))
        return result


@contextmanager
def fake_cuda() -> Iterator[None]:
    """New tensors are fake, on whichever device they name; on CUDA too gradients can be taken.

    The default device stays the CPU, so that a tensor made without a device is found.
    """

    def backward(self: Tensor) -> None:
        for leaf, gradient in differentiate(self).items():
            leaf.grad = gradient if leaf.grad is None else leaf.grad + gradient

    def move(module: M, device: torch.device | None = None, **options: Any) -> M:
        return module if device is None or torch.device(device) != CUDA else to_fake_cuda(module)

    def grad(outputs: Tensor, inputs: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
        found = differentiate(outputs)
        return tuple(found[t] for t in ([inputs] if isinstance(inputs, Tensor) else inputs))

    with (
        FakeTensorMode(),
        mock.patch.object(Tensor, "backward", backward),
        mock.patch.object(nn.Module, "to", move),
        mock.patch("torch.autograd.grad", grad),
        # a teacher is a deep copy: its tensors belong to the same mode
        mock.patch.object(FakeTensorMode, "__deepcopy__", lambda mode, memo: mode, create=True),
        # autocast switches itself off where there is no CUDA
        mock.patch("torch.cuda.is_available", return_value=True),
        mock.patch("torch.cuda.is_bf16_supported", return_value=True),
    ):
        yield


def to_fake_cuda(module: M) -> M:
    """The module with fake parameters and buffers on the device; its own `.to` needs the driver."""
    for part in module.modules():
        for name, p in part._parameters.items():
            if p is not None:
                fake = torch.empty(p.shape, dtype=p.dtype, device=CUDA)
                part._parameters[name] = nn.Parameter(fake, p.requires_grad)
        for name, b in part._buffers.items():
            if b is not None:
                part._buffers[name] = torch.empty(b.shape, dtype=b.dtype, device=CUDA)
    return module


class FakeAccelerator:
    """What a learner asks of Accelerate, for the fake device."""

    device, scaler = CUDA, None

    def __init__(self, precision: str) -> None:
        self.dtype = getattr(torch, precision)

    def autocast(self) -> torch.autocast:
        return torch.autocast("cuda", self.dtype, enabled=self.dtype != torch.float32)

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def clip_grad_norm_(self, parameters: Any, norm: float) -> Tensor:
        return nn.utils.clip_grad_norm_(parameters, norm)

    def prepare(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        return optimizer


def differentiate(output: Tensor) -> dict[Tensor, Tensor]:
    """The gradient of a scalar for every leaf tensor that it depends on."""
    leaves: dict[Tensor, Tensor] = {}
    pending = {output.grad_fn: [torch.ones_like(output)]}
    while pending:
        # A node made later comes earlier in the backward pass.
        node = max(pending, key=lambda n: n._sequence_nr())
        gradients = node(*pending.pop(node))
        gradients = gradients if isinstance(gradients, tuple) else (gradients,)
        for (target, slot), gradient in zip(node.next_functions, gradients, strict=True):
            if target is None or gradient is None:
                continue
            leaf = getattr(target, "variable", None)
            like = target._input_metadata[slot] if leaf is None else leaf
            # as torch's engine does, since a node's own formula may leave it out
            gradient = gradient.sum_to_size(like.shape).to(like.dtype)
            if leaf is not None:
                leaves[leaf] = leaves[leaf] + gradient if leaf in leaves else gradient
                continue
            slots = pending.setdefault(target, [None] * len(target._input_metadata))
            slots[slot] = gradient if slots[slot] is None else slots[slot] + gradient
    return leaves
