"""What a launcher (torchrun, accelerate launch) says of this process. Loads no torch."""

from __future__ import annotations

import os
from typing import NamedTuple

from dlp_plugins.errors import UsageError

# Launchers of MPI count processes in variables of their own; torch.distributed reads only the
# first.
SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
NEEDED = ("RANK", "MASTER_ADDR", "MASTER_PORT")


class Launch(NamedTuple):
    """rank: of this process, from 0. size: how many there are. The local ones: of this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1


ONE = Launch()


def launched() -> Launch:
    """This process among those that a launcher started; alone without one.

    Raises:
        UsageError: several processes, but nothing by which they could find each other.
    """
    size = max(_number(name, 1) for name in SIZES)
    if size == 1:
        return ONE
    if _number("WORLD_SIZE", 1) != size or any(name not in os.environ for name in NEEDED):
        raise UsageError(
            f"{size} processes were started ({'/'.join(SIZES)}), but {', '.join(NEEDED)} do not "
            "say how they find each other. Start them by torchrun or accelerate launch."
        )
    rank = _number("RANK", 0)
    return Launch(rank, size, _number("LOCAL_RANK", rank), _number("LOCAL_WORLD_SIZE", size))


def is_first() -> bool:
    """Whether this process is the one that prints and writes."""
    return _number("RANK", 0) == 0 or max(_number(name, 1) for name in SIZES) == 1


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else default
