"""What the processes of one run tell each other. A single process needs none of it.

Every method that speaks to the others is called by all of them, in the same order.
"""

from __future__ import annotations

import atexit
import itertools
import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from dlp_plugins._threads import length
from dlp_plugins.errors import UsageError
from dlp_plugins.processes.interface import talk_by_the_way_to
from dlp_plugins.processes.launch import ONE, Launch, launched
from dlp_plugins.processes.watch import RESUME, Watch

T = TypeVar("T")
B = TypeVar("B")
# One process may compute for long while the others wait; those that died or hang are found by
# `Watch`, long before this.
PATIENCE = timedelta(hours=2)
CONNECT_SECONDS = 30


class Processes:
    """This process and the others.

    rank: of this one, from 0; the first alone writes, prints and decides. size: how many.
    local_rank, local_size: the same on this machine.
    """

    def __init__(self, launch: Launch = ONE) -> None:
        self.rank, self.size, self.local_rank, self.local_size = launch

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def alone(self) -> bool:
        return self.size == 1

    @contextmanager
    def together(self, advice: str = RESUME) -> Iterator[None]:
        """Context in which one process that dies, hangs or raises ends the others.

        It is left by all at the same time.

        Args:
            advice: what to do when another has died, for the message.

        Raises:
            LostProcessError: another has died or hangs. ElsewhereError: another has raised, and
                has said why.
        """
        if self.alone:
            yield
            return
        _clean.clear()
        with Watch(self.rank, self.size, advice).ending_together():
            yield
            self.barrier()
        _clean.set()

    def barrier(self) -> None:
        """Wait for all."""
        if not self.alone:
            self.totals([0.0])

    def in_turn(self, work: Callable[[], T]) -> T:
        """The work of the first process of each machine, then of the others: it may download."""
        if self.local_rank == 0:
            found = work()
        self.barrier()
        if self.local_rank != 0:
            found = work()
        return found

    def once(self, work: Callable[[], T]) -> T:
        """What `work` gives in the first process, for all. Small objects: they are pickled."""
        found: Any = work() if self.first else None
        return self.from_first(found)

    def from_first(self, value: T) -> T:
        """The first process's value, for all. Small objects: they are pickled."""
        if self.alone:
            return value
        held: list[Any] = [value]
        dist.broadcast_object_list(held, device=torch.device("cpu"))
        return held[0]

    def each(self, value: T) -> list[T]:
        """The value of each process, for all. Small objects: they are pickled."""
        if self.alone:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def tensor_from_first(self, tensor: Tensor) -> Tensor:
        """The first process's tensor, for all; all have one of that shape."""
        if self.alone:
            return tensor
        shared = tensor.to(torch.uint8) if tensor.dtype == torch.bool else tensor
        shared = shared.contiguous().clone() if shared is tensor else shared.contiguous()
        dist.broadcast(shared, 0)
        return shared.to(tensor.dtype)

    def totals(self, numbers: Sequence[float]) -> list[float]:
        """Each number summed over the processes, in float64 on the CPU."""
        return self.summed(torch.tensor(list(numbers), dtype=torch.float64)).tolist()

    def summed(self, numbers: Tensor) -> Tensor:
        """Numbers on the CPU summed over the processes, in float64."""
        held = numbers.double()
        if not self.alone:
            held = held.clone()
            dist.all_reduce(held)
        return held

    @contextmanager
    def averaging(self, tensors: Sequence[Tensor]) -> Iterator[None]:
        """Context that replaces tensors of real numbers by their means over the processes.

        They travel while its body works, which must leave them alone; at its end they are means.
        """
        tensors = [t for t in tensors if t.is_floating_point()]
        if self.alone or not tensors:
            yield
            return
        flat = torch.cat([t.detach().reshape(-1) for t in tensors])
        travelling = dist.all_reduce(flat, async_op=True)
        yield
        travelling.wait()
        flat /= self.size
        parts = flat.split([t.numel() for t in tensors])
        with torch.no_grad():
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    # -- rows shared among the processes ---------------------------------------------------------

    def shares(self, count: int) -> list[slice]:
        """0..count in one slice per process; the first ones may have one more."""
        ends = [0]
        for rank in range(self.size):
            ends.append(ends[-1] + count // self.size + (rank < count % self.size))
        return [slice(*pair) for pair in itertools.pairwise(ends)]

    def share(self, count: int) -> slice:
        """This process's slice of 0..count."""
        return self.shares(count)[self.rank]

    def share_blocks(
        self, blocks: Sequence[B], rows: Callable[[B], int]
    ) -> tuple[Sequence[B], list[int]]:
        """This process's share of the blocks of some rows, and how many rows each process has."""
        shares = self.shares(len(blocks))
        return blocks[shares[self.rank]], [sum(map(rows, blocks[share])) for share in shares]

    def swap(self, numbers: Sequence[int]) -> list[int]:
        """A number for each process; gives those of each process for this one."""
        ones = [1] * self.size
        return self.exchange(torch.tensor(numbers), ones, ones).tolist()

    def exchange(self, rows: Tensor, sending: Sequence[int], receiving: Sequence[int]) -> Tensor:
        """Rows for process 0, then those for process 1, ...; gives what each sent to this one.

        Args:
            rows: [sum(sending), ...] on the CPU.
            sending: how many of them each process gets.
            receiving: how many each process has for this one (see `swap`).

        Returns:
            [sum(receiving), ...], those of process 0 first.
        """
        if self.alone:
            return rows
        found = rows.new_empty((sum(receiving), *rows.shape[1:]))
        dist.all_to_all_single(found, rows.contiguous(), list(receiving), list(sending))
        return found

    def gather_rows(self, own: Tensor | None, counts: Sequence[int]) -> Tensor:
        """The rows of all processes, in their order.

        Args:
            own: [counts[rank], ...]; None where that is 0.
            counts: of each process.
        """
        if self.alone:
            assert own is not None
            return own
        have = next(rank for rank, count in enumerate(counts) if count)
        kind = None if own is None else (tuple(own.shape[1:]), own.dtype, own.device.type)
        held: list[Any] = [kind]
        dist.broadcast_object_list(held, have, device=torch.device("cpu"))
        shape, dtype, device = held[0]
        wire = torch.uint8 if dtype == torch.bool else dtype
        padded = torch.zeros(
            (max(counts), *shape), dtype=wire, device=device if own is None else own.device
        )
        if own is not None:
            padded[: len(own)] = own
        found = padded.new_empty((self.size, *padded.shape))
        dist.all_gather(list(found.unbind()), padded)
        if math.prod(shape) and len(set(counts)) == 1:
            return found.flatten(0, 1).to(dtype)
        return torch.cat([f[:count] for f, count in zip(found, counts, strict=True)]).to(dtype)

    def gather_shares(self, own: Tensor, count: int) -> Tensor:
        """The rows [count, ...] of all processes, of which each has those of its share."""
        return self.gather_rows(own, [length(share) for share in self.shares(count)])


ALONE = Processes()
_clean = threading.Event()  # whether the last work together has come to its end


def _leave() -> None:
    """Say goodbye, without which NCCL warns; after a failure nobody would answer."""
    if _clean.is_set():
        dist.destroy_process_group()


def join(device: str) -> Processes:
    """This process and those that were started with it, ready to talk.

    Args:
        device: type of the device whose tensors they exchange: 'cpu' or 'cuda'.

    Raises:
        UsageError: the others were not found, or there are fewer GPUs than processes.
    """
    launch = launched()
    if launch.size == 1:
        return ALONE
    if device == "cuda" and launch.local_size > torch.cuda.device_count():
        raise UsageError(
            f"{launch.local_size} processes were started on this machine, but torch sees "
            f"{torch.cuda.device_count()} GPU(s). Start one per GPU, or use --device cpu."
        )
    if device == "cuda":
        torch.cuda.set_device(launch.local_rank)
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
        wait = timedelta(seconds=CONNECT_SECONDS)
        if launch.local_size < launch.size:
            talk_by_the_way_to(os.environ["MASTER_ADDR"])
        try:
            store, rank, size = next(dist.rendezvous("env://", timeout=wait))
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=wait)
            _set_timeout(PATIENCE)
        except (dist.DistError, RuntimeError, ValueError) as error:
            raise UsageError(
                f"process {launch.rank} of {launch.size} did not find the others within "
                f"{CONNECT_SECONDS} s: {str(error).splitlines()[0]}"
            ) from error
        store.set_timeout(PATIENCE)
        atexit.register(_leave)
    return Processes(launch)


def _set_timeout(timeout: timedelta) -> None:
    """Of all that is to come. Older versions of torch have the function under another name."""
    named = getattr(dist, "set_timeout", None) or dist.distributed_c10d._set_pg_timeout
    named(timeout)
