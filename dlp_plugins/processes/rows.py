"""Rows that are shared among processes, and those of the others that each needs again and again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dlp_plugins.processes.group import Processes


@dataclass(frozen=True)
class RowExchange:
    """Which rows each process sends to which, so that each gets those that it wants.

    asked: [s] int64, own rows, counted from the first, that others want; process 0's wishes first.
    sending: how many of them each process wants.
    receiving: how many this one wants of each.
    place: [w] int64, which arriving row each wanted one is; None where they arrive in order.
    """

    processes: Processes
    asked: Tensor
    sending: list[int]
    receiving: list[int]
    place: Tensor | None

    @classmethod
    def plan(cls, processes: Processes, shares: Sequence[slice], wanted: Tensor) -> RowExchange:
        """Ask the owners of the wanted rows for them; all processes do this together.

        Args:
            shares: the rows of each process, one after the other.
            wanted: [w] int64, rows counted over all processes; ascending ones arrive in order.
        """
        owner = owners(shares, wanted)
        receiving = torch.bincount(owner, minlength=len(shares)).tolist()
        order = owner.argsort(stable=True)
        sending = processes.swap(receiving)
        asked = processes.exchange(wanted[order], receiving, sending)
        in_order = bool((owner[1:] >= owner[:-1]).all())
        place = None if in_order else order.argsort()
        return cls(processes, asked - shares[processes.rank].start, sending, receiving, place)

    @property
    def wanted(self) -> int:
        """How many rows this process wants."""
        return sum(self.receiving)

    def fetch(self, own: Tensor) -> Tensor:
        """The wanted rows [w, ...], of rows of which each process gives its own [m, ...]."""
        arrived = self.processes.exchange(own[self.asked], self.sending, self.receiving)
        return arrived if self.place is None else arrived[self.place]


def owners(shares: Sequence[slice], rows: Tensor) -> Tensor:
    """[w] int64: the process that has each of the rows [w]."""
    stops = torch.tensor([share.stop for share in shares])
    return torch.searchsorted(stops, rows, right=True)
