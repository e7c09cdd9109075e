"""Random numbers that depend only on where in the run they are drawn.

Each step seeds torch from (seed, stage, epoch, step). A resumed run thus draws what the
uninterrupted one would have, at any step, without any random state in the checkpoint.
"""

from __future__ import annotations

import numpy as np
import torch

from dlp_plugins.environment import seed_generators


def derive(seed: int, *place: int) -> int:
    """A seed for this place in the run; another for every other place.

    The spawn key begins with its length, because NumPy pads short entropy with zeros: (7), (7, 0)
    and (7, 0, 0) would give the same numbers.
    """
    sequence = np.random.SeedSequence(seed, spawn_key=(len(place), *place))
    return int(sequence.generate_state(1, np.uint64)[0] >> 1)


def seed_step(seed: int, *place: int) -> None:
    """Seed torch's global generators, on all devices in use."""
    seed_generators(derive(seed, *place))


def generator(seed: int, *place: int) -> torch.Generator:
    """A CPU generator of its own for this place."""
    return torch.Generator().manual_seed(derive(seed, *place))
