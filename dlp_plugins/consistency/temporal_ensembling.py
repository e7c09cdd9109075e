"""Temporal ensembling: agreement with an average over past epochs, kept for each example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from dlp_plugins.consistency._terms import probabilities, squared_error
from dlp_plugins.consistency.contract import Consistency, Step
from dlp_plugins.network import Network
from dlp_plugins.registry import consistency
from dlp_plugins.schedules._ramp_up import ramp_up


@consistency.register("temporal_ensembling")
@dataclass
class TemporalEnsembling(Consistency):
    """The prediction agrees with those of earlier epochs (Laine and Aila, ICLR 2017, algorithm 2).

        L = supervised + weight (l/b) r(epoch) (1/(b c)) sum_ij (z_ij - t_ij)^2

    z [b, c]: the student's softmax on all b images. After each epoch, for every example seen in it,

        Z_i <- momentum Z_i + (1 - momentum) z_i,   t_i = Z_i / (1 - momentum^(k_i)),

    z_i its last prediction in the epoch, k_i the epochs it was seen in. The authors count all
    epochs, which is the same when each shows every example; here an epoch may leave some out, and
    an example not seen in an earlier one has no target and adds 0. Memory: 2 n c floats, kept in
    checkpoints. r is the sigmoid ramp-up. The supervised term is a mean over the batch, l of it
    labelled (in stage two all b); the authors' factor is the labelled share M/N of the training
    set, which is also that of their batches.
    """

    num_classes: int
    weight: Annotated[
        float,
        Field(ge=0, description="of the consistency after the ramp-up, times the labelled share"),
    ] = 30.0
    ramp_up_epochs: Annotated[float, Field(ge=0, description="epochs of sigmoid ramp-up")] = 80.0
    momentum: Annotated[
        float, Field(ge=0, lt=1, description="share that the ensemble keeps at each epoch")
    ] = 0.6

    needs_unlabeled = True

    def begin_stage(self, student: Network, num_examples: int, total_steps: int) -> None:
        device = next(student.parameters()).device
        self._memory = {
            "ensemble": torch.zeros(num_examples, self.num_classes, device=device),
            "latest": torch.zeros(num_examples, self.num_classes, device=device),
            "seen": torch.zeros(num_examples, dtype=torch.bool, device=device),
            "count": torch.zeros(num_examples, device=device),
        }

    def begin_epoch(self, student: Network, epoch: int) -> None:
        """Take in what the last epoch showed; before the first there is nothing."""
        m = self._memory
        updated = self.momentum * m["ensemble"] + (1 - self.momentum) * m["latest"]
        m["ensemble"] = torch.where(m["seen"][:, None], updated, m["ensemble"])
        m["count"] += m["seen"]
        m["seen"].zero_()

    def losses(self, step: Step) -> dict[str, Tensor]:
        index, predicted = step.batch.index, probabilities(step.output.logits)
        count = self._memory["count"][index]
        # 0 / 1 where there is no target yet; the mask drops it.
        correction = torch.where(count > 0, 1 - self.momentum**count, 1.0)
        target = self._memory["ensemble"][index] / correction[:, None]
        error = squared_error(predicted, target) * (count > 0)
        self._remember(step.gather(index), step.gather(predicted.detach()))
        weight = self.weight * step.batch.share_known * ramp_up(step.epoch, self.ramp_up_epochs)
        return {**super().losses(step), "consistency": weight * error.mean()}

    def _remember(self, index: Tensor, predicted: Tensor) -> None:
        # An example may stand in a batch twice. Which write would win is not defined on a GPU, and
        # a resumed run must be the same; so each copy writes what the first one predicts.
        first = (index[:, None] == index).int().argmax(dim=1)
        self._memory["latest"][index] = predicted[first].float()
        self._memory["seen"].index_fill_(0, index, True)

    def state(self) -> dict[str, Tensor]:
        return dict(self._memory)

    def load_state(self, state: dict[str, Tensor]) -> None:
        for name, tensor in self._memory.items():
            tensor.copy_(state[name])
