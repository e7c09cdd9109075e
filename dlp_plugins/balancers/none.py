"""No balance: every class counts the same."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dlp_plugins.balancers.contract import Balancer
from dlp_plugins.registry import balancers


@balancers.register("none")
@dataclass(frozen=True)
class NoBalance(Balancer):
    """z_j = 1 for every class that has an example: the paper's ablation 'without balance'."""

    def class_weights(self, counts: Tensor) -> Tensor:
        return (counts > 0).float()
