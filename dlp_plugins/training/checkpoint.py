"""Checkpoints: every tensor and number a resumed run needs, in one safetensors file.

One file, so that one rename replaces it: a kill at any moment leaves the old checkpoint or the
new one, whole. No random state is kept: every step is seeded by its own number (`seeds.py`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dlp_plugins.errors import DataError
from dlp_plugins.training.folder import write_with

State = dict[str, Tensor]


def save(path: Path, tensors: State, numbers: dict[str, Any] | None = None) -> None:
    """Write atomically.

    Raises:
        SaveError: the disk is full or the folder cannot be written; the old file is intact.
    """
    # Copies: two names must not share memory in a safetensors file.
    plain = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    metadata = {"numbers": json.dumps(numbers or {})}
    write_with(path, lambda temporary: save_file(plain, temporary, metadata))


def load(path: Path) -> tuple[State, dict[str, Any]]:
    """Tensors on the CPU, and the numbers.

    Raises:
        DataError: missing or damaged; never a silent fresh start.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, json.loads((file.metadata() or {}).get("numbers", "{}"))
    except (SafetensorError, OSError) as error:
        raise DataError(
            f"{path} cannot be read: {error}. Start anew in another folder with --out, or put "
            "an intact copy of the file in its place."
        ) from error


def add_prefix(prefix: str, state: State) -> State:
    return {f"{prefix}.{k}": v for k, v in state.items()}


def with_prefix(prefix: str, state: State) -> State:
    """The entries under a prefix, without it."""
    start = f"{prefix}."
    return {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
