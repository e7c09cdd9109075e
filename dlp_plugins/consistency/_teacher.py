"""The averaged network, shared by the methods that keep one."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from dlp_plugins.consistency.contract import Consistency
from dlp_plugins.network import Network


def floating(tensors: list[Tensor]) -> list[Tensor]:
    """Batch norm counts its batches in an integer, which has no average."""
    return [t for t in tensors if t.is_floating_point()]


class WithTeacher(Consistency):
    """A teacher theta' that averages the student theta.

    theta'_t = a_t theta'_(t-1) + (1 - a_t) theta_t,  a_t = min(1 - 1/(t + 1), ema_decay),

    t = 1 after the first step (Tarvainen and Valpola, 2017, section 2). Until a_t reaches ema_decay
    this is the plain mean of theta_0..theta_t. Each stage starts it as a copy of the student.
    """

    ema_decay: float
    # A teacher that sees batches in training mode gathers its own batch-norm statistics; one that
    # is only measured takes the average of the student's.
    averages_statistics: bool = False
    teacher: nn.Module

    def begin_stage(self, student: Network, num_examples: int) -> None:
        self.teacher = copy.deepcopy(student).requires_grad_(False).train()
        self._averaged = self._tensors(self.teacher)

    def after_step(self, student: Network, number: int) -> None:
        decay = min(1 - 1 / (number + 2), self.ema_decay)
        with torch.no_grad():
            torch._foreach_lerp_(self._averaged, self._tensors(student), 1 - decay)

    def _tensors(self, network: nn.Module) -> list[Tensor]:
        buffers = list(network.buffers()) if self.averages_statistics else []
        return [*network.parameters(), *floating(buffers)]
