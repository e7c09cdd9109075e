"""Random numbers that depend only on where in the run they are drawn.

Each step seeds torch anew from (seed, stage, epoch, step). A resumed run thus draws what the
uninterrupted one would have, at any step, without any random state in the checkpoint.
"""

from __future__ import annotations

import numpy as np
import torch


def derive(*place: int) -> int:
    """A seed for this place in the run."""
    return int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0] >> 1)


def seed_step(*place: int) -> None:
    """Seed torch's global generators, on all devices."""
    torch.manual_seed(derive(*place))


def generator(*place: int) -> torch.Generator:
    """A CPU generator of its own for this place."""
    return torch.Generator().manual_seed(derive(*place))
