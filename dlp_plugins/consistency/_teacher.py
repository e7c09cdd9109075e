"""The averaged network, shared by the methods that keep one."""

from __future__ import annotations

import copy

import torch
from torch import nn

from dlp_plugins.consistency.contract import Consistency
from dlp_plugins.network import Network


class WithTeacher(Consistency):
    """A teacher theta' that averages the student theta.

    theta'_t = a_t theta'_(t-1) + (1 - a_t) theta_t,  a_t = min(1 - 1/(t + 1), ema_decay),

    t = 1 after the first step (Tarvainen and Valpola, 2017, section 2). Until a_t reaches ema_decay
    this is the plain mean of theta_0..theta_t. Each stage starts it as a copy of the student.
    theta are the trained parameters: of a weight-normalised layer its length and direction, as in
    the authors' code, not the weight that follows from them.
    """

    ema_decay: float
    # A teacher that sees batches in training mode gathers its own batch-norm statistics; one that
    # is only measured takes the student's.
    copies_statistics: bool = False
    teacher: nn.Module

    def begin_stage(self, student: Network, num_examples: int, total_steps: int) -> None:
        self.teacher = copy.deepcopy(student).requires_grad_(False).train()

    @torch.no_grad()
    def after_step(self, student: Network, number: int) -> None:
        decay = min(1 - 1 / (number + 2), self.ema_decay)
        torch._foreach_lerp_(list(self.teacher.parameters()), list(student.parameters()), 1 - decay)
        if self.copies_statistics and (statistics := list(student.buffers())):
            torch._foreach_copy_(list(self.teacher.buffers()), statistics)
